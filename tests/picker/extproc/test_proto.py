"""The trimmed protobuf against envoy-data-plane, a second implementation of the whole protocol: descriptors, then bytes both ways."""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from envoy_data_plane.envoy.config.core import v3 as core
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.service.ext_proc import v3 as upstream
from envoy_data_plane.envoy.type import v3 as http
from envoy_data_plane.google.protobuf import Struct
from google.protobuf import struct_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool

from picker.extproc.codec import decode, encode
from picker.extproc.events import (
    DEFAULT_MODES,
    BodyMode,
    BodyReply,
    Event,
    HeaderChange,
    HeadersReply,
    ImmediateReply,
    Modes,
    Phase,
    ProtocolError,
    Reply,
    RequestBody,
    RequestHeaders,
    RequestTrailers,
    ResponseBody,
    ResponseHeaders,
    ResponseTrailers,
    StreamedBodyReply,
    TrailersReply,
)
from picker.extproc.pb import ext_proc_pb2 as pb
from tests.support import ext_proc as proxy

PACKAGE = "envoy.service.ext_proc.v3"
UPSTREAM: dict[str, type[Any]] = {
    **{m: getattr(upstream, m) for m in pb.DESCRIPTOR.message_types_by_name if hasattr(upstream, m)},
    **{m: getattr(core, m) for m in ("HeaderMap", "HeaderValue", "HeaderValueOption", "Metadata")},
    "HttpStatus": http.HttpStatus,
    "ProcessingMode": ProcessingMode,
}
ENUMS: dict[str, type[enum.IntEnum]] = {
    "ProcessingMode.BodySendMode": ProcessingModeBodySendMode,
    "ProcessingMode.HeaderSendMode": ProcessingModeHeaderSendMode,
}
# Upstream's HttpStatus.code is an enum: the same on the wire, and an int32 takes every status there is.
SAME_ON_THE_WIRE = {("HttpStatus", "code"): ("int32", "enum")}

_TYPE_NAMES = {number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()}


def _file(change: Callable[[FileDescriptorProto], None] = lambda file: None) -> FileDescriptorProto:
    file = FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    change(file)
    return file


def _target(hint: Any) -> type[Any] | None:
    """The class inside `X | None`, `list[X]` or `dict[str, X]`."""
    inner = [a for a in (typing.get_args(hint) or (hint,)) if isinstance(a, type) and a is not type(None)]
    return inner[-1] if inner else None


def differences(file: FileDescriptorProto) -> list[str]:
    """Where `file` says something else than upstream. Fields that it leaves out do not count."""
    pool = DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    found: list[str] = []
    for message in pool.FindFileByName(file.name).message_types_by_name.values():
        for nested in message.enum_types:
            theirs = {str(member.name): int(member) for member in ENUMS[f"{message.name}.{nested.name}"]}
            ours = {value.name: value.number for value in nested.values}
            found += [] if ours == theirs else [f"{message.name}.{nested.name}: {ours} instead of {theirs}"]
        if message.fields:
            found += _field_differences(message)
    return found


def _field_differences(message: Any) -> Iterator[str]:
    their_class = UPSTREAM[message.name]
    hints = typing.get_type_hints(their_class)
    theirs = {f.name: f.metadata["betterproto"] for f in dataclasses.fields(their_class)}
    for field in message.fields:
        where = f"{message.name}.{field.name}"
        meta = theirs.get(field.name)
        if meta is None:
            yield f"{where} does not exist upstream"
            continue
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        ours_type = "map" if is_map else _TYPE_NAMES[field.type]
        if ours_type != meta.proto_type and SAME_ON_THE_WIRE.get((message.name, field.name)) != (ours_type, meta.proto_type):
            yield f"{where}: type {ours_type} instead of {meta.proto_type}"
        if field.number != meta.number:
            yield f"{where}: number {field.number} instead of {meta.number}"
        if not is_map and field.is_repeated != meta.repeated:
            yield f"{where}: repeated or not"
        group = field.containing_oneof.name if field.containing_oneof is not None else None
        if group != meta.group:
            yield f"{where}: in oneof {group} instead of {meta.group}"
        if is_map:
            entry = field.message_type.fields_by_name
            kinds = tuple([_TYPE_NAMES[entry[part].type] for part in ("key", "value")])
            if kinds != tuple([part.proto_type for part in meta.map_meta]):
                yield f"{where}: map of {kinds}"
        elif field.message_type is not None:
            target = _target(hints[field.name])
            expected = Struct if field.message_type.full_name == "google.protobuf.Struct" else UPSTREAM[field.message_type.name]
            if target is not expected:
                yield f"{where}: a {field.message_type.name} instead of {target}"


def test_every_field_exists_upstream_with_the_same_number_and_type() -> None:
    assert pb.DESCRIPTOR.package == PACKAGE
    assert differences(_file()) == []


def _message(file: FileDescriptorProto, name: str) -> Any:
    return next(m for m in file.message_type if m.name == name)


def _field(file: FileDescriptorProto, message: str, name: str) -> Any:
    return next(f for f in _message(file, message).field if f.name == name)


MUTATIONS: dict[str, Callable[[FileDescriptorProto], None]] = {
    "ProcessingRequest.metadata_context: number": lambda f: setattr(_field(f, "ProcessingRequest", "metadata_context"), "number", 18),
    "HttpBody.end_of_stream: type": lambda f: setattr(_field(f, "HttpBody", "end_of_stream"), "type", FieldDescriptorProto.TYPE_INT32),
    "HeaderMutation.remove_headers: repeated": lambda f: setattr(
        _field(f, "HeaderMutation", "remove_headers"), "label", FieldDescriptorProto.LABEL_OPTIONAL
    ),
    "HeadersResponse.response: a": lambda f: setattr(_field(f, "HeadersResponse", "response"), "type_name", f".{PACKAGE}.TrailersResponse"),
    "BodyMutation.clear_body: in oneof": lambda f: _field(f, "BodyMutation", "clear_body").ClearField("oneof_index"),
    "HttpBody.bodies does not exist": lambda f: setattr(_field(f, "HttpBody", "body"), "name", "bodies"),
    "ProcessingMode.BodySendMode:": lambda f: setattr(_message(f, "ProcessingMode").enum_type[1].value[4], "number", 14),
}


@pytest.mark.parametrize("said", MUTATIONS)
def test_a_changed_descriptor_is_noticed(said: str) -> None:
    found = differences(_file(MUTATIONS[said]))
    assert len(found) == 1 and found[0].startswith(said), found


def test_our_body_modes_have_upstreams_numbers() -> None:
    assert {m.name: int(m) for m in BodyMode} == {str(m.name): int(m) for m in ProcessingModeBodySendMode}


# ---- bytes in ----------------------------------------------------------------------------------------------------------------

HINT = ("192.168.1.1:8000", "192.168.1.2")
HEARD: dict[str, tuple[upstream.ProcessingRequest, Event]] = {
    "request headers": (
        proxy.request_headers({":path": "/v1/completions", "X-Mixed": "Å"}, end=True),
        RequestHeaders([(":path", b"/v1/completions"), ("x-mixed", "Å".encode())], True),
    ),
    "a value instead of a raw value": (
        upstream.ProcessingRequest(
            request_headers=upstream.HttpHeaders(headers=core.HeaderMap(headers=[core.HeaderValue(key="a", value="b")]))
        ),
        RequestHeaders([("a", b"b")]),
    ),
    "raw value wins over value": (
        upstream.ProcessingRequest(
            request_headers=upstream.HttpHeaders(headers=core.HeaderMap(headers=[core.HeaderValue(key="a", value="b", raw_value=b"\xff")]))
        ),
        RequestHeaders([("a", b"\xff")]),
    ),
    "no header map at all": (upstream.ProcessingRequest(request_headers=upstream.HttpHeaders()), RequestHeaders([])),
    "a hint": (proxy.request_headers({}, subset=HINT), RequestHeaders([], subset=list(HINT))),
    "a hint as text": (proxy.request_headers({}, subset=", ".join(HINT)), RequestHeaders([], subset=list(HINT))),
    "an empty hint": (proxy.request_headers({}, subset=[]), RequestHeaders([], subset=[])),
    "an empty hint as text": (proxy.request_headers({}, subset=""), RequestHeaders([], subset=[])),
    "metadata without a hint": (
        upstream.ProcessingRequest(
            request_headers=upstream.HttpHeaders(), metadata_context=proxy.metadata({"envoy.lb": {"a": "b"}, "envoy.lb.subset_hint": {}})
        ),
        RequestHeaders([]),
    ),
    "a hint of a wrong type matches nothing": (
        upstream.ProcessingRequest(
            request_body=upstream.HttpBody(),
            metadata_context=proxy.metadata({"envoy.lb.subset_hint": {"x-gateway-destination-endpoint-subset": 7.0}}),
        ),
        RequestBody(b"", subset=[]),
    ),
    "modes": (
        proxy.request_headers({}, config=proxy.protocol(ProcessingModeBodySendMode.BUFFERED, ProcessingModeBodySendMode.NONE)),
        RequestHeaders([], modes=Modes(BodyMode.BUFFERED, BodyMode.NONE)),
    ),
    "modes of a response": (
        proxy.response_headers({}, config=proxy.protocol(ProcessingModeBodySendMode.GRPC, ProcessingModeBodySendMode.STREAMED)),
        ResponseHeaders([], modes=Modes(BodyMode.GRPC, BodyMode.STREAMED)),
    ),
    "observing": (proxy.request_headers({}, observing=True), RequestHeaders([], modes=Modes(observability=True))),
    "no modes": (proxy.request_headers({}), RequestHeaders([], modes=DEFAULT_MODES)),
    "request body": (proxy.request_body(b"\x00\xff", end=True), RequestBody(b"\x00\xff", True)),
    "request body with a hint": (proxy.request_body(b"a", end=False, subset=["b"]), RequestBody(b"a", False, ["b"])),
    "empty request body": (proxy.request_body(b"", end=False), RequestBody(b"")),
    "request trailers": (proxy.request_trailers(), RequestTrailers()),
    "response headers": (
        proxy.response_headers({":status": "200"}, end=True, served="10.0.0.1:8000"),
        ResponseHeaders([(":status", b"200")], True, "10.0.0.1:8000"),
    ),
    "served unknown": (proxy.response_headers({}), ResponseHeaders([])),
    "response body": (proxy.response_body(b"data", end=False), ResponseBody(b"data")),
    "response trailers": (proxy.response_trailers(), ResponseTrailers()),
    "trailers of a call": (proxy.response_trailers({"grpc-status": "14"}), ResponseTrailers([("grpc-status", b"14")])),
    "more than we know of": (
        upstream.ProcessingRequest(
            response_body=upstream.HttpBody(body=b"a", grpc_message_compressed=True),
            attributes={"envoy.filters": Struct.from_dict({"a": "b"})},
        ),
        ResponseBody(b"a"),
    ),
}


@pytest.mark.parametrize("case", HEARD)
def test_a_proxys_bytes_become_the_event(case: str) -> None:
    message, event = HEARD[case]
    assert decode(bytes(message)) == event


@pytest.mark.parametrize(
    "data", [b"", b"\x0a\x03abc", b"not protobuf", b"\x12\xff", bytes(upstream.ProcessingRequest(observability_mode=True))]
)
def test_what_is_no_request_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


def test_a_body_mode_from_the_future_is_a_protocol_error() -> None:
    message = pb.ProcessingRequest(request_headers=pb.HttpHeaders(), protocol_config=pb.ProtocolConfiguration(request_body_mode=9))  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="body mode 9"):
        decode(message.SerializeToString())


# ---- bytes out ---------------------------------------------------------------------------------------------------------------

CHANGE = HeaderChange([("x-gateway-destination-endpoint", b"10.0.0.1:8000"), ("hi", b"mom\xff")], ["x-a", "x-b"])
METADATA = {"envoy.lb": {"x-gateway-destination-endpoint": "10.0.0.1:8000"}}


def _common(body: upstream.BodyMutation | None = None, *, clear: bool = False, change: bool = True) -> upstream.CommonResponse:
    def option(key: str, value: bytes) -> core.HeaderValueOption:
        return core.HeaderValueOption(header=core.HeaderValue(key=key, raw_value=value))

    pairs = [option("x-gateway-destination-endpoint", b"10.0.0.1:8000"), option("hi", b"mom\xff")]
    mutation = upstream.HeaderMutation(set_headers=pairs, remove_headers=["x-a", "x-b"]) if change else upstream.HeaderMutation()
    return upstream.CommonResponse(header_mutation=mutation, body_mutation=body, clear_route_cache=clear)


def _streamed(body: bytes, end: bool) -> upstream.BodyResponse:
    streamed = upstream.StreamedBodyResponse(body=body, end_of_stream=end)
    return upstream.BodyResponse(response=upstream.CommonResponse(body_mutation=upstream.BodyMutation(streamed_response=streamed)))


SAID: dict[str, tuple[Reply, upstream.ProcessingResponse]] = {
    "request headers": (
        HeadersReply(Phase.REQUEST, CHANGE, clear_route_cache=True, metadata=METADATA),
        upstream.ProcessingResponse(
            request_headers=upstream.HeadersResponse(response=_common(clear=True)), dynamic_metadata=Struct.from_dict(METADATA)
        ),
    ),
    "headers left alone": (
        HeadersReply(Phase.REQUEST),
        upstream.ProcessingResponse(request_headers=upstream.HeadersResponse(response=_common(change=False))),
    ),
    "response headers": (
        HeadersReply(Phase.RESPONSE, CHANGE),
        upstream.ProcessingResponse(response_headers=upstream.HeadersResponse(response=_common())),
    ),
    "headers of a response whose body is to be kept": (
        HeadersReply(Phase.RESPONSE, keep_body=Modes(BodyMode.BUFFERED, BodyMode.STREAMED)),
        upstream.ProcessingResponse(
            response_headers=upstream.HeadersResponse(response=_common(change=False)),
            mode_override=ProcessingMode(
                request_header_mode=ProcessingModeHeaderSendMode.SEND,
                response_header_mode=ProcessingModeHeaderSendMode.SEND,
                request_body_mode=ProcessingModeBodySendMode.BUFFERED,
                request_trailer_mode=ProcessingModeHeaderSendMode.SKIP,
                response_trailer_mode=ProcessingModeHeaderSendMode.SEND,
            ),
        ),
    ),
    "streamed request body": (
        StreamedBodyReply(Phase.REQUEST, b"\x00piece", False),
        upstream.ProcessingResponse(request_body=_streamed(b"\x00piece", False)),
    ),
    "empty streamed response body": (
        StreamedBodyReply(Phase.RESPONSE, b"", True),
        upstream.ProcessingResponse(response_body=_streamed(b"", True)),
    ),
    "buffered request body": (
        BodyReply(Phase.REQUEST, b"new", CHANGE, clear_route_cache=True, metadata=METADATA),
        upstream.ProcessingResponse(
            request_body=upstream.BodyResponse(response=_common(upstream.BodyMutation(body=b"new"), clear=True)),
            dynamic_metadata=Struct.from_dict(METADATA),
        ),
    ),
    "body emptied": (
        BodyReply(Phase.RESPONSE, b""),
        upstream.ProcessingResponse(response_body=upstream.BodyResponse(response=_common(upstream.BodyMutation(body=b""), change=False))),
    ),
    "body left alone": (
        BodyReply(Phase.RESPONSE),
        upstream.ProcessingResponse(response_body=upstream.BodyResponse(response=_common(change=False))),
    ),
    "request trailers": (TrailersReply(Phase.REQUEST), upstream.ProcessingResponse(request_trailers=upstream.TrailersResponse())),
    "response trailers": (TrailersReply(Phase.RESPONSE), upstream.ProcessingResponse(response_trailers=upstream.TrailersResponse())),
    "immediate response": (
        ImmediateReply(503, b"no\xff", [("x-llm-d-request-dropped-reason", b"rejected-no-endpoints")], "fairlead_x"),
        upstream.ProcessingResponse(
            immediate_response=upstream.ImmediateResponse(
                status=http.HttpStatus(code=http.StatusCode(503)),
                headers=upstream.HeaderMutation(
                    set_headers=[
                        core.HeaderValueOption(
                            header=core.HeaderValue(key="x-llm-d-request-dropped-reason", raw_value=b"rejected-no-endpoints")
                        )
                    ]
                ),
                body=b"no\xff",
                details="fairlead_x",
            )
        ),
    ),
    "immediate response to a gRPC client": (
        ImmediateReply(429, b"no", details="x", grpc_status=8),
        upstream.ProcessingResponse(
            immediate_response=upstream.ImmediateResponse(
                status=http.HttpStatus(code=http.StatusCode(429)), body=b"no", grpc_status=upstream.GrpcStatus(status=8), details="x"
            )
        ),
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_a_reply_becomes_what_a_proxy_reads(case: str) -> None:
    reply, expected = SAID[case]
    assert _plain(upstream.ProcessingResponse.parse(encode(reply))) == _plain(expected)


def _plain(message: upstream.ProcessingResponse) -> Any:
    """Without the difference between an empty message and none: it is one on the wire, but means the same to Envoy."""
    if not dataclasses.is_dataclass(message):
        return message
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    plain = {name: [_plain(v) for v in value] if isinstance(value, list) else _plain(value) for name, value in fields.items()}
    return {name: value for name, value in plain.items() if value or name in ("request_trailers", "response_trailers", "streamed_response")}


def test_every_kind_of_reply_is_among_them() -> None:
    assert {type(reply) for reply, _ in SAID.values()} == set(typing.get_args(Reply))
    assert {type(event) for _, event in HEARD.values()} == set(typing.get_args(Event))
