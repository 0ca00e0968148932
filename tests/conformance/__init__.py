"""The endpoint-picker contract as black-box tests: a real process, real sockets, messages of an independent implementation."""
