"""What Prometheus may scrape: every metric's name, kind and labels in one place, and a registry of this process's own.

Where the `prometheus_client` package is absent (on a GPU machine) everything here does nothing. Labels never hold prose.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["counter", "gauge", "histogram"]

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
MINUTES = (1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0)


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = SECONDS


CATALOGUE = (
    Metric("navarch_build_info", "gauge", "Always 1; the labels say what runs.", ("version", "service")),
    Metric("navarch_nodes_total", "gauge", "Nodes by the status that people see.", ("status",)),
    Metric(
        "navarch_node_health_status",
        "gauge",
        "Health of a node: 1 healthy, 0.5 degraded, 0 unhealthy or unknown.",
        ("node_id", "status"),
    ),
    Metric("navarch_gpus_total", "gauge", "GPUs of the nodes that one pays for.", ("provider",)),
    Metric("navarch_heartbeats_total", "counter", "Heartbeats heard."),
    Metric("navarch_reports_total", "counter", "Reports folded in.", ("kind",)),
    Metric(
        "navarch_messages_rejected_total", "counter", "Messages dropped because they could not be used.", ("service",)
    ),
    Metric("navarch_dead_letters_total", "counter", "Messages that went to the dead letters.", ("service", "code")),
    Metric("navarch_detection_seconds", "histogram", "From a report's arrival to its durable verdict."),
    Metric(
        "navarch_failure_to_launch_seconds",
        "histogram",
        "From a node's failure to the launch of its replacement.",
        (),
        (*SECONDS, 60.0, 120.0, 300.0),
    ),
    Metric("navarch_launches_total", "counter", "Launches by outcome.", ("provider", "outcome")),
    Metric("navarch_boot_seconds", "histogram", "From launch to active.", ("provider",), MINUTES),
    Metric("navarch_pool_nodes", "gauge", "Nodes of a pool by status.", ("pool", "status")),
    Metric("navarch_pool_nodes_desired", "gauge", "How many nodes a pool should have.", ("pool",)),
    Metric("navarch_decisions_total", "counter", "Decisions by their code.", ("pool", "code")),
    Metric("navarch_budget_remaining", "gauge", "Places left in a pool's disruption budget.", ("pool",)),
    Metric("navarch_leaked_instances", "gauge", "Machines with our tags and no living record.", ("provider",)),
    Metric("navarch_leaked_dollars_per_hour", "gauge", "What leaked machines cost.", ("provider",)),
    Metric("navarch_cost_dollars_per_hour", "gauge", "What the machines of a pool cost.", ("pool", "provider")),
    Metric("navarch_xid_errors_total", "counter", "Xid errors reported.", ("code",)),
    Metric("navarch_consumer_pending_messages", "gauge", "Messages that wait for a consumer.", ("stream", "consumer")),
    Metric("navarch_outbox_events", "gauge", "Events durable and not yet known to be published."),
    Metric(
        "navarch_events_told_again_total",
        "counter",
        "Events that the bus had lost and that were told again.",
        ("service",),
    ),
    Metric("navarch_failures_remembered_total", "counter", "Failures that the store had forgotten and events told of."),
    Metric("navarch_reconcile_seconds", "histogram", "How long one pass of a loop took.", ("service",)),
    Metric("navarch_reconcile_failures_total", "counter", "Passes that failed.", ("service",)),
    Metric("navarch_config_generation", "gauge", "The configuration in force here.", ("service",)),
    Metric("navarch_frozen", "gauge", "1 while a freeze holds.", ("level", "pool")),
    Metric("navarch_safe_mode", "gauge", "1 in safe mode: no launch, no termination."),
    Metric(
        "navarch_verdicts_suspended",
        "gauge",
        "1 while silence is not judged because the observer was deaf.",
        ("reason",),
    ),
    Metric("navarch_provider_up", "gauge", "1 while a provider answers.", ("provider",)),
    Metric(
        "navarch_cloud_request_duration_seconds",
        "histogram",
        "Calls to a cloud.",
        ("provider", "operation", "code"),
        (*SECONDS, 60.0, 120.0),
    ),
    Metric("navarch_lost_gpu_seconds_total", "counter", "GPU time lost to what failed.", ("pool", "cause")),
    Metric("navarch_bus_disconnects_total", "counter", "Times that the connection to the bus was lost."),
    Metric("navarch_bus_dropped_messages_total", "counter", "Messages dropped because a reader here was too slow."),
    Metric("navarch_http_requests_total", "counter", "Requests to the API.", ("method", "route", "code")),
    Metric(
        "navarch_gpu_utilization_ratio", "gauge", "Opt-in: utilization of a GPU, 0 to 1.", ("node_id", "pool", "gpu")
    ),
    Metric("navarch_gpu_temperature_celsius", "gauge", "Opt-in: temperature of a GPU.", ("node_id", "pool", "gpu")),
    Metric("navarch_gpu_memory_used_ratio", "gauge", "Opt-in: memory in use, 0 to 1.", ("node_id", "pool", "gpu")),
    Metric("navarch_gpu_power_watts", "gauge", "Opt-in: power drawn by a GPU.", ("node_id", "pool", "gpu")),
)
"""Every metric of Navarch. A name is a promise: add freely, rename never."""

CONTENT_TYPE_NONE = "text/plain; charset=utf-8"


class Metrics:
    """The metrics of one process. A name or a label that is not in the catalogue is a mistake of ours: `KeyError`."""

    def __init__(self) -> None:
        self._client: Any = _prometheus_client()
        self._metrics: dict[str, Any] = {}
        self._children: dict[str, dict[tuple[tuple[str, str], ...], Any]] = {}
        """By metric, its series that were written lately: finding one by its labels costs more than writing it."""
        self._measures: list[Callable[[], None]] = []
        if self._client is not None:
            self._registry = self._client.CollectorRegistry()
            self._client.ProcessCollector(registry=self._registry)
            self._client.GCCollector(registry=self._registry)
            self._metrics = {metric.name: self._made(metric) for metric in CATALOGUE}

    def count(self, name: str, amount: float = 1.0, **labels: str) -> None:
        if self._client is not None:
            self._child(name, labels).inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        if self._client is not None:
            self._child(name, labels).observe(value)

    def set(self, name: str, value: float, **labels: str) -> None:
        if self._client is not None:
            self._child(name, labels).set(value)

    def set_all(self, name: str, values: Mapping[tuple[str, ...], float]) -> None:
        """Sets a gauge for exactly these label values, in the order of its labels; series that are gone disappear."""
        if self._client is not None:
            gauge = self._metrics[name]
            gauge.clear()
            self._children.pop(name, None)
            for labels, value in values.items():
                gauge.labels(*labels).set(value)

    def before_render(self, measure: Callable[[], None]) -> None:
        """`measure` sets gauges that are not kept up to date otherwise: it is called whenever they are looked at."""
        self._measures.append(measure)

    def render(self) -> tuple[bytes, str]:
        """The text that is scraped, and its content type."""
        if self._client is None:
            return b"", CONTENT_TYPE_NONE
        for measure in self._measures:
            measure()
        text: bytes = self._client.generate_latest(self._registry)
        return text, str(self._client.CONTENT_TYPE_LATEST)

    def _child(self, name: str, labels: Mapping[str, str]) -> Any:
        known = self._children.setdefault(name, {})
        series = tuple(labels.items())
        child = known.get(series)
        if child is None:
            metric = self._metrics[name]
            child = known[series] = metric.labels(**labels) if labels else metric
        return child

    def _made(self, metric: Metric) -> Any:
        if metric.kind == "histogram":
            return self._client.Histogram(
                metric.name, metric.help, metric.labels, registry=self._registry, buckets=metric.buckets
            )
        made = self._client.Counter if metric.kind == "counter" else self._client.Gauge
        return made(metric.name, metric.help, metric.labels, registry=self._registry)


def _prometheus_client() -> Any:
    """None where the package is not installed. By name, since the agent's import contract forbids it."""
    try:
        return importlib.import_module("prometheus_client")
    except ModuleNotFoundError:
        return None
