"""The listener: HTTP connection manager, its filters, and the one route."""

from betterproto2 import Message
from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation as Mutation
from envoy_data_plane.envoy.config.core.v3 import (
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    SubstitutionFormatString,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import (
    RetryPolicy,
    RetryPolicyRetryBackOff,
    RetryPolicyRetryHostPredicate,
    Route,
    RouteAction,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.access_loggers.file.v3 import FileAccessLog
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.envoy.extensions.filters.http.ext_proc.v3 import (
    ExternalProcessor,
    MetadataOptions,
    MetadataOptionsMetadataNamespaces,
    ProcessingMode,
    ProcessingModeBodySendMode,
    ProcessingModeHeaderSendMode,
)
from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata.v3 import Config as HeaderToMetadata
from envoy_data_plane.envoy.extensions.filters.http.header_to_metadata.v3 import ConfigKeyValuePair, ConfigRule
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerCodecType,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import HeaderMutation
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatchAndSubstitute, RegexMatcher
from envoy_data_plane.google.protobuf import Struct

from gateway.envoy.messages import address, extension, packed, seconds
from gateway.envoy.settings import (
    DESTINATION_HEADER,
    FIRST_NAMESPACE,
    LB_NAMESPACE,
    SERVED_KEY,
    STDOUT,
    SUBSET_NAMESPACE,
    BootstrapSettings,
)

ENDPOINTS_CLUSTER = "endpoints"
PICKER_CLUSTER = "picker"
# Small, so that a slow reader of a stream is felt by the model server and not paid for in Envoy's memory.
CONNECTION_BUFFER_BYTES = 32768
# Each of these says that the model server has not begun to work on the request, so a second try costs no tokens.
# One flaw comes with any retry policy: a body that trailers follow is sent twice (envoyproxy/envoy issue 45470). Only HTTP/2 clients
# can send request trailers, and none that speaks to model servers is known to; `--retries 0` is for those that do.
RETRY_ON = "connect-failure,refused-stream,reset-before-request"
ACCESS_LOG_FIELDS = {
    "time": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "response_code": "%RESPONSE_CODE%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "response_flags": "%RESPONSE_FLAGS%",
    "destination": f"%REQ({DESTINATION_HEADER.upper()})%",
    "upstream_host": "%UPSTREAM_HOST%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "duration_ms": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
}


def listener(settings: BootstrapSettings) -> Listener:
    """The listener clients connect to."""
    manager = _connection_manager(settings)
    return Listener(
        name="inference",
        address=address(settings.listen),
        per_connection_buffer_limit_bytes=CONNECTION_BUFFER_BYTES,
        filter_chains=[FilterChain(filters=[Filter(name="envoy.filters.network.http_connection_manager", typed_config=packed(manager))])],
    )


def _connection_manager(settings: BootstrapSettings) -> HttpConnectionManager:
    return HttpConnectionManager(
        stat_prefix="ingress",
        codec_type=HttpConnectionManagerCodecType.AUTO,
        stream_idle_timeout=seconds(settings.stream_idle_timeout_s),
        # The id a client sends is the one it will ask the picker's decision record for.
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        normalize_path=True,
        early_header_mutation_extensions=[_strip_client_destination()],
        access_log=_access_log(settings.access_log),
        route_config=_routes(settings),
        http_filters=[
            _http_filter("envoy.filters.http.ext_proc", _ext_proc(settings)),
            *([] if settings.static_endpoints else [_http_filter("envoy.filters.http.header_to_metadata", _destination_metadata())]),
            _http_filter("envoy.filters.http.router", Router(suppress_envoy_headers=True)),
        ],
    )


def _http_filter(name: str, message: Message) -> HttpFilter:
    return HttpFilter(name=name, typed_config=packed(message))


def _strip_client_destination() -> TypedExtensionConfig:
    # A client that could name its own destination would reach any address Envoy can.
    return extension(
        "envoy.http.early_header_mutation.header_mutation",
        HeaderMutation(mutations=[Mutation(remove=DESTINATION_HEADER), Mutation(remove=SERVED_KEY)]),
    )


def _ext_proc(settings: BootstrapSettings) -> ExternalProcessor:
    send, duplex = ProcessingModeHeaderSendMode.SEND, ProcessingModeBodySendMode.FULL_DUPLEX_STREAMED
    return ExternalProcessor(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=PICKER_CLUSTER, authority=PICKER_CLUSTER), timeout=seconds(10)
        ),
        message_timeout=seconds(settings.message_timeout_s),
        failure_mode_allow=settings.failure_mode_allow,
        allow_mode_override=True,
        processing_mode=ProcessingMode(
            request_header_mode=send,
            response_header_mode=send,
            request_body_mode=duplex,
            response_body_mode=ProcessingModeBodySendMode.NONE if settings.keep_response_bodies else duplex,
            request_trailer_mode=send,
            # With response bodies kept, trailers that may come are what keeps the stream open, and the request counted as in flight.
            response_trailer_mode=send,
        ),
        metadata_options=MetadataOptions(
            forwarding_namespaces=MetadataOptionsMetadataNamespaces(untyped=[LB_NAMESPACE, SUBSET_NAMESPACE]),
            receiving_namespaces=MetadataOptionsMetadataNamespaces(untyped=[LB_NAMESPACE]),
        ),
    )


def _destination_metadata() -> HeaderToMetadata:
    """Close two gaps between an ORIGINAL_DST cluster and the endpoint-picker protocol.

    It reads one address and would answer 503 to a list of them: the first of the list is given to it by metadata. And it does
    not say which host it used: the route writes that into a response header, and this filter, which sees the response
    before ext_proc does, moves it to where the protocol wants it.
    """
    first = ConfigKeyValuePair(
        metadata_namespace=FIRST_NAMESPACE,
        key=DESTINATION_HEADER,
        regex_value_rewrite=RegexMatchAndSubstitute(pattern=RegexMatcher(regex=r"^ *([^ ,]+).*$"), substitution=r"\1"),
    )
    served = ConfigKeyValuePair(metadata_namespace=LB_NAMESPACE, key=SERVED_KEY)
    return HeaderToMetadata(
        request_rules=[ConfigRule(header=DESTINATION_HEADER, on_header_present=first)],
        response_rules=[ConfigRule(header=SERVED_KEY, on_header_present=served, remove=True)],
    )


def _routes(settings: BootstrapSettings) -> RouteConfiguration:
    served = HeaderValueOption(
        header=HeaderValue(key=SERVED_KEY, value="%UPSTREAM_REMOTE_ADDRESS%"),
        append_action=HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    route = Route(
        match=RouteMatch(prefix="/"),
        route=RouteAction(
            cluster=ENDPOINTS_CLUSTER,
            timeout=seconds(settings.route_timeout_s),
            idle_timeout=seconds(settings.stream_idle_timeout_s),
            retry_policy=_retry_policy(settings) if settings.retries else None,
        ),
        # A try can be repeated only while its whole body is held, and a long prompt is larger than the connection's buffer.
        request_body_buffer_limit=settings.retry_body_bytes if settings.retries else None,
        response_headers_to_add=[] if settings.static_endpoints else [served],
    )
    return RouteConfiguration(name="local", virtual_hosts=[VirtualHost(name="all", domains=["*"], routes=[route])])


def _retry_policy(settings: BootstrapSettings) -> RetryPolicy:
    # Once the picker's list is used up Envoy's own balancing goes on, which should not return to a host that just failed.
    previous = RetryPolicyRetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=packed(PreviousHostsPredicate())
    )
    return RetryPolicy(
        retry_on=RETRY_ON,
        num_retries=settings.retries,
        retry_back_off=RetryPolicyRetryBackOff(base_interval=seconds(0.01), max_interval=seconds(0.25)),
        retry_host_predicate=[previous] if settings.static_endpoints else [],
        host_selection_retry_max_attempts=3 if settings.static_endpoints else 0,
    )


def _access_log(target: str | None) -> list[AccessLog]:
    if target is None:
        return []
    line = SubstitutionFormatString(json_format=Struct.from_dict(dict(ACCESS_LOG_FIELDS)))
    if target == STDOUT:
        return [AccessLog(name="envoy.access_loggers.stdout", typed_config=packed(StdoutAccessLog(log_format=line)))]
    return [AccessLog(name="envoy.access_loggers.file", typed_config=packed(FileAccessLog(path=target, log_format=line)))]
