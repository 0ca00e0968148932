"""The descriptor pool of the generated messages: private, so that upstream's own generated code may live in the same process."""

from __future__ import annotations

from functools import cache

from google.protobuf import struct_pb2
from google.protobuf.descriptor_pool import DescriptorPool


@cache
def pool() -> DescriptorPool:
    """One pool per process, with the well-known types our messages use."""
    private = DescriptorPool()  # type: ignore[no-untyped-call,unused-ignore]
    private.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    return private
