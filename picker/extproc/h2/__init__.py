"""A gRPC server over HTTP/2 (RFC 9113) made for short calls: one read answered by one write, no task per stream.

From the socket inwards: `protocol` (asyncio), `connection` (sans-IO; frames in, frames out), `inbound` and `outbound` (the two directions'
windows and queues), `stream`, `call` (what a method implements), `ext_proc_call` and `health_calls` (the methods served).
"""
