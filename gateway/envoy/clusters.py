"""The two clusters: the model servers, and the picker."""

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterLbPolicy,
    ClusterOriginalDstLbConfig,
    ClusterTransportSocketMatch,
    LoadBalancingPolicy,
    LoadBalancingPolicyPolicy,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import (
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    HttpProtocolOptions,
    KeepaliveSettings,
    TransportSocket,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    EndpointHealthCheckConfig,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.load_balancing_policies.override_host.v3 import OverrideHost, OverrideHostOverrideHostSource
from envoy_data_plane.envoy.extensions.load_balancing_policies.round_robin.v3 import RoundRobin
from envoy_data_plane.envoy.extensions.transport_sockets.raw_buffer.v3 import RawBuffer
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import CommonTlsContext, UpstreamTlsContext
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions as UpstreamOptions
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptionsExplicitHttpConfig as ExplicitHttp
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any, Struct, Value

from gateway.address import HostPort
from gateway.envoy.listener import ENDPOINTS_CLUSTER, PICKER_CLUSTER
from gateway.envoy.messages import address, extension, metadata_key, packed, seconds
from gateway.envoy.settings import DESTINATION_HEADER, FIRST_NAMESPACE, HEALTH_SERVICE, LB_NAMESPACE, SERVED_KEY, BootstrapSettings

# Queueing is the picker's business: Envoy's own limits stay out of the way.
CIRCUIT_BREAKER_LIMIT = 40000
# uvicorn, and so vLLM, closes a connection idle for 5 s; Envoy lets go first, or requests would meet the closing.
UPSTREAM_IDLE_S = 4.0
PLAINTEXT = "plaintext"


def endpoints_cluster(settings: BootstrapSettings) -> Cluster:
    """The model servers: any address the picker names, or only those listed, with ordered fallbacks."""
    cluster = Cluster(
        name=ENDPOINTS_CLUSTER,
        connect_timeout=seconds(settings.connect_timeout_s),
        circuit_breakers=_circuit_breakers(),
        typed_extension_protocol_options=_protocol(
            ExplicitHttp(http2_protocol_options=Http2ProtocolOptions())
            if settings.upstream_http2
            else ExplicitHttp(http_protocol_options=Http1ProtocolOptions()),
            idle_s=UPSTREAM_IDLE_S,
        ),
    )
    if settings.static_endpoints:
        cluster.type = ClusterDiscoveryType.STATIC
        cluster.load_balancing_policy = _override_host()
        cluster.load_assignment = _assignment(ENDPOINTS_CLUSTER, [_endpoint(at) for at in settings.static_endpoints])
    else:
        cluster.type = ClusterDiscoveryType.ORIGINAL_DST
        cluster.lb_policy = ClusterLbPolicy.CLUSTER_PROVIDED
        cluster.original_dst_lb_config = ClusterOriginalDstLbConfig(
            use_http_header=True, http_header_name=DESTINATION_HEADER, metadata_key=metadata_key(FIRST_NAMESPACE, DESTINATION_HEADER)
        )
    return cluster


def picker_cluster(settings: BootstrapSettings) -> Cluster:
    """The picker over HTTP/2, with active gRPC health checks on its health port and passive ones on its answers."""
    health_port = settings.picker_health_port
    checked = health_port is not None
    cluster = Cluster(
        name=PICKER_CLUSTER,
        type=ClusterDiscoveryType.STATIC if settings.picker.is_ip else ClusterDiscoveryType.STRICT_DNS,
        connect_timeout=seconds(settings.connect_timeout_s),
        circuit_breakers=_circuit_breakers(),
        # Replicas that wait for leadership report NOT_SERVING. Were most hosts unhealthy, Envoy's panic mode would send to
        # them all the same; at 0 it never does.
        common_lb_config=ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0.0)),
        outlier_detection=_outlier_detection(),
        typed_extension_protocol_options=_protocol(ExplicitHttp(http2_protocol_options=_picker_http2())),
        health_checks=[_health_check(settings)] if checked else [],
        load_assignment=_assignment(PICKER_CLUSTER, [_endpoint(settings.picker, health_port)]),
    )
    if settings.picker_tls:
        cluster.transport_socket = _tls(settings.picker)
        if checked:
            # The health port speaks plain text whatever the ext_proc port speaks.
            cluster.transport_socket_matches = [
                ClusterTransportSocketMatch(
                    name=PLAINTEXT,
                    match=_flag(PLAINTEXT),
                    transport_socket=TransportSocket(name="envoy.transport_sockets.raw_buffer", typed_config=packed(RawBuffer())),
                )
            ]
    return cluster


def _flag(name: str) -> Struct:
    return Struct(fields={name: Value(bool_value=True)})


def _circuit_breakers() -> CircuitBreakers:
    limit = CIRCUIT_BREAKER_LIMIT
    return CircuitBreakers(
        thresholds=[CircuitBreakersThresholds(max_connections=limit, max_pending_requests=limit, max_requests=limit, max_retries=limit)]
    )


def _protocol(config: ExplicitHttp, idle_s: float | None = None) -> dict[str, Any]:
    common = None if idle_s is None else HttpProtocolOptions(idle_timeout=seconds(idle_s))
    options = UpstreamOptions(common_http_protocol_options=common, explicit_http_config=config)
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(options)}


def _picker_http2() -> Http2ProtocolOptions:
    return Http2ProtocolOptions(
        max_concurrent_streams=1000,
        initial_stream_window_size=1 << 20,
        initial_connection_window_size=8 << 20,
        connection_keepalive=KeepaliveSettings(interval=seconds(30), timeout=seconds(5)),
    )


def _health_check(settings: BootstrapSettings) -> HealthCheck:
    interval = seconds(settings.picker_health_interval_s)
    return HealthCheck(
        timeout=seconds(2),
        interval=interval,
        # Without it Envoy checks a cluster that has had no traffic once a minute only.
        no_traffic_interval=interval,
        unhealthy_threshold=3,
        healthy_threshold=2,
        grpc_health_check=HealthCheckGrpcHealthCheck(service_name=HEALTH_SERVICE),
        transport_socket_match_criteria=_flag(PLAINTEXT) if settings.picker_tls else None,
    )


def _outlier_detection() -> OutlierDetection:
    # Half of the replicas at most, so that the only replica, or the last one, is never ejected.
    return OutlierDetection(
        interval=seconds(5),
        base_ejection_time=seconds(5),
        max_ejection_percent=50,
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=3,
    )


def _tls(picker: HostPort) -> TransportSocket:
    # The picker's certificate is self-signed by default: it encrypts, it does not identify.
    context = UpstreamTlsContext(common_tls_context=CommonTlsContext(alpn_protocols=["h2"]), sni="" if picker.is_ip else picker.host)
    return TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))


def _override_host() -> LoadBalancingPolicy:
    policy = OverrideHost(
        override_host_sources=[
            OverrideHostOverrideHostSource(metadata=metadata_key(LB_NAMESPACE, DESTINATION_HEADER)),
            OverrideHostOverrideHostSource(header=DESTINATION_HEADER),
        ],
        selected_host_key=metadata_key(LB_NAMESPACE, SERVED_KEY),
        fallback_policy=LoadBalancingPolicy(
            policies=[
                LoadBalancingPolicyPolicy(typed_extension_config=extension("envoy.load_balancing_policies.round_robin", RoundRobin()))
            ]
        ),
    )
    return LoadBalancingPolicy(
        policies=[LoadBalancingPolicyPolicy(typed_extension_config=extension("envoy.load_balancing_policies.override_host", policy))]
    )


def _endpoint(at: HostPort, health_port: int | None = None) -> LbEndpoint:
    check = None if health_port is None else EndpointHealthCheckConfig(port_value=health_port)
    return LbEndpoint(endpoint=Endpoint(address=address(at), health_check_config=check))


def _assignment(name: str, endpoints: list[LbEndpoint]) -> ClusterLoadAssignment:
    return ClusterLoadAssignment(cluster_name=name, endpoints=[LocalityLbEndpoints(lb_endpoints=endpoints)])
