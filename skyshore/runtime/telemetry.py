"""All Prometheus metrics. Names have the prefix `skyshore_` and their unit; labels have few values."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram, start_http_server

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

# gateway
REQUESTS = Counter("skyshore_requests", "Requests ended, by kind and outcome status.", ["kind", "status"])
LATENCY = Histogram("skyshore_request_latency_seconds", "Arrival to last byte.", ["kind"], buckets=_LATENCY_BUCKETS)
TTFT = Histogram("skyshore_ttft_seconds", "Arrival to first token.", buckets=_LATENCY_BUCKETS)
OVERHEAD = Histogram("skyshore_gateway_overhead_seconds", "Arrival to dispatch.", buckets=_LATENCY_BUCKETS)
IN_FLIGHT = Gauge("skyshore_requests_in_flight", "Requests accepted and not ended.", ["kind"])
RECORDS_DROPPED = Counter(
    "skyshore_records_dropped", "Outcomes, task records or decisions given up, by kind.", ["kind"]
)
DISK_FREE = Gauge("skyshore_disk_room_bytes", "Bytes that uploads may still take: the disk without its reserve.")

# every process with the state store
STORE_UNREADABLE = Counter(
    "skyshore_store_unreadable", "Entries of the store that could not be read, by kind.", ["kind"]
)
LOG_WRITES_LOST = Counter("skyshore_log_writes_lost", "Writes of log lines that stderr did not take.")
OUTAGES = Counter("skyshore_outages", "Times a loop lost a dependency, by loop.", ["loop"])
RETRIES = Counter("skyshore_retries", "Retries on a node, by kind and result: sent or over_budget.", ["kind", "result"])
BREAKERS_OPEN = Gauge("skyshore_breakers_open", "Nodes that get no task, or only a probe, after their failures.")
WEBHOOKS = Counter("skyshore_webhooks", "Tries to send a webhook: delivered, failed or given_up.", ["result"])

# scheduler
DECISIONS = Counter("skyshore_decisions", "Placements and rejections, by policy and result.", ["policy", "result"])
DECISION_SECONDS = Histogram(
    "skyshore_decision_seconds", "Time to decide.", buckets=(1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2, 0.1)
)
NODES = Gauge("skyshore_nodes", "Nodes with a running lease.", ["tier"])

# profiler
LENGTH_COVERAGE = Gauge(
    "skyshore_output_length_coverage_ratio", "Share of answers within a predicted quantile.", ["service_class", "level"]
)

# nodes
RUNNING = Gauge("skyshore_node_tasks_running", "Tasks being worked on.")
QUEUED = Gauge("skyshore_node_tasks_queued", "Tasks admitted and waiting.")
KV_USED = Gauge("skyshore_node_kv_used_ratio", "Share of KV memory in use.")
DECODE_BATCH = Gauge("skyshore_node_decode_batch_rows", "Mean rows per decode step.")
TOKENS = Counter("skyshore_node_tokens", "Tokens generated.")
FRAMES = Counter("skyshore_node_frames", "Frames looked at.")
JOULES = Counter("skyshore_node_joules", "Energy charged to tasks, by provenance.", ["source"])


def serve_metrics(port: int, listen: str) -> None:
    """Serve /metrics on `port`, on the host of `listen` (host:port), from a daemon thread. Port 0 serves nothing."""
    if port:
        start_http_server(port, addr=listen.rpartition(":")[0])
