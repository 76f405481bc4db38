"""Settings of every gRPC server and channel of this project."""

from __future__ import annotations

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
"""Limit in both directions. The largest message is one encoded 4K frame; the default of gRPC (4 MB) is too small."""

_SIZES = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
)

SERVER_OPTIONS: tuple[tuple[str, int], ...] = (
    *_SIZES,
    ("grpc.so_reuseport", 0),  # two processes on one port is a mistake: the second one must fail
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # our clients send a ping every 20 s
)

CLIENT_OPTIONS: tuple[tuple[str, int], ...] = (
    *_SIZES,
    # A client finds a restarted process within one second. A process that stays away costs few attempts.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
    # Detect a broken cable, where no connection reset arrives. The interval is long because on a slow link a ping
    # waits behind bulk data. The leases of the nodes are watched as well.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)
