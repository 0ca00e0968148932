"""The endpoint picker: read this package from top to bottom and you follow one request."""
