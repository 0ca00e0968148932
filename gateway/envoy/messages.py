"""Short words for the wrappers that every Envoy message is made of."""

from datetime import timedelta
from ipaddress import ip_address

from betterproto2 import Message
from envoy_data_plane.envoy.config.core.v3 import Address, SocketAddress, TypedExtensionConfig
from envoy_data_plane.envoy.type.metadata.v3 import MetadataKey, MetadataKeyPathSegment
from envoy_data_plane.google.protobuf import Any

from gateway.address import HostPort


def packed(message: Message) -> Any:
    """`message` as the `typed_config` of an extension."""
    return Any.pack(message)


def extension(name: str, message: Message) -> TypedExtensionConfig:
    """A named extension with its typed configuration."""
    return TypedExtensionConfig(name=name, typed_config=packed(message))


def seconds(value: float) -> timedelta:
    """A duration."""
    return timedelta(seconds=value)


def address(at: HostPort) -> Address:
    """A TCP address; an IPv6 address in its canonical spelling, the one Envoy compares by."""
    host = str(ip_address(at.host)) if at.is_ip else at.host
    return Address(socket_address=SocketAddress(address=host, port_value=at.port))


def metadata_key(namespace: str, key: str) -> MetadataKey:
    """A key of a dynamic metadata namespace."""
    return MetadataKey(key=namespace, path=[MetadataKeyPathSegment(key=key)])
