"""Every limit of the HTTP/2 server in one place. A peer that goes beyond one is answered as the comment says."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    # ---- what a peer is told in SETTINGS
    max_streams: int = 4096
    """Open at once per connection; one more gets REFUSED_STREAM. A streamed LLM answer holds its stream for its whole life."""
    stream_window_bytes: int = MIB
    """A 5 MB body then needs 10 window updates, and a stream whose peer does not read holds at most this much unread input."""
    connection_window_bytes: int = 16 * MIB
    """Input is consumed at once, so this only bounds what is under way."""
    max_frame_bytes: int = 16_384
    """The protocol's minimum: larger frames delay the small ones of other streams behind them."""
    header_list_bytes: int = 32_768
    """Decoded size of a header list (RFC 9113 counts 32 per field); more ends the call with RESOURCE_EXHAUSTED."""
    header_table_bytes: int = 4096
    """HPACK dynamic table the peer may use."""

    # ---- messages
    max_message_bytes: int = 4 * MIB
    """After decompression, gRPC's default; more ends the call with RESOURCE_EXHAUSTED."""
    max_reply_bytes: int = 0
    """A reply larger than this ends the call with RESOURCE_EXHAUSTED; 0: no limit, gRPC's default for sending."""

    # ---- memory
    max_connections: int = 1024
    """Further connections are closed as they come. A proxy opens one per worker thread."""
    header_block_bytes: int = 65_536
    """An encoded header block over all its frames, and the hard limit on its decoded size; more ends the connection, as the HPACK state
    would be lost."""
    header_block_frames: int = 16
    """HEADERS plus CONTINUATION frames of one block; more ends the connection (CONTINUATION flood)."""
    stream_outbound_bytes: int = MIB
    """A stream with more than this waiting to be sent is not read from: its window is not given back, its messages are not handled."""
    write_bytes: int = 4 * MIB
    """Bytes handed to the socket before it is asked whether it keeps up."""
    connection_bytes: int = 256 * MIB
    """Partial messages, unread input and unsent output of one connection; a call that would go beyond ends with RESOURCE_EXHAUSTED."""

    # ---- floods: tokens and tokens per second; an empty bucket ends the connection with ENHANCE_YOUR_CALM
    control_burst: int = 10_000
    control_per_s: int = 1_000
    """PING, SETTINGS, PRIORITY, WINDOW_UPDATE, unknown frames, and DATA that brings next to nothing. Work earns tokens: a client may send
    two such frames for each DATA frame it is sent or message it sends (gRPC clients measure bandwidth with a PING per read). A DATA frame
    that its window cut to a few bytes earns nothing (tiny windows)."""
    reset_burst: int = 2_000
    reset_per_s: int = 200
    """Streams that ended before anything was answered: reset by the client, refused, or broken (rapid reset and its kin). A proxy whose
    clients all leave at once resets all its streams once, 1,000 with fairlead's bootstrap. Each answered stream earns a token: a busy
    proxy's impatient clients must not cost the patient ones their connection."""

    # ---- times
    handshake_s: float = 10.0
    """TLS handshake; then preface, SETTINGS and the ACK of ours: SETTINGS_TIMEOUT."""
    idle_s: float = 7_200.0
    """A connection without streams gets GOAWAY. Longer than Envoy's upstream idle timeout of 1 h, so that the proxy closes first."""
    keepalive_s: float = 60.0
    """Nothing heard for this long: PING. Streams of a proxy that vanished would otherwise count as in flight until TCP gives up."""
    keepalive_timeout_s: float = 20.0
    """Nothing heard after that PING: the connection is dropped."""
    stall_s: float = 300.0
    """A stream that could not be sent to for this long, or only a few bytes at a time, is reset (CANCEL); a socket that took nothing for
    this long is closed. Long, because behind a proxy there may be a client that reads slowly."""
    linger_s: float = 5.0
    """A refused HTTP request may go on sending its body for this long, unread."""
    drain_notice_s: float = 1.0
    """Between the first GOAWAY and the final one, when the client does not answer the PING in between."""

    # ---- deadlines
    tick_s: float = 0.1
    """Resolution of grpc-timeout: a call ends at most this much late."""
