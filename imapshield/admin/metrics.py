"""The figures for Prometheus, which needs the package prometheus_client (``pip install 'imapshield[metrics]'``).

Rules
-----
* No label is an address, a user or any text of a client. So there are at most `MAX_SERIES` time series, and five for
  each ``--backend``.
* Names have base units, as https://prometheus.io/docs/practices/naming/ says. Renaming one breaks dashboards.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from imapshield.admin.monitor import Monitor
from imapshield.observe.reactor_delay import BOUNDS

try:
    import prometheus_client
    from prometheus_client import core
except ImportError:
    is_available = False
else:
    is_available = True

MAX_SERIES = 400
"""Time series at most. The limits have most of them: `counters.MAX_LIMITS`, and one more for each action."""

_GAUGES = (
    ("max_connections", "max_connections", "Connections that are possible."),
    ("pending_commands", "pending_commands", "Commands that wait to be executed."),
    ("client_memory_bytes", "memory_of_connections", "Memory that is held for connections."),
    ("client_memory_limit_bytes", "max_memory", "Memory that may be held for connections."),
    ("bans", "bans", "Bans that apply now."),
    ("uptime_seconds", "seconds", "Seconds since the start."),
)


_TRIED = ("up", "failing", "draining")
"""The states of a node that is not known to be down."""


class Metrics:
    """Makes the figures of one server.

    Args:
        monitor: has the numbers.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._status: Mapping[str, Any] = {}
        # Its own registry: a program that embeds the server has other figures in the global one.
        self._registry = prometheus_client.CollectorRegistry()
        self._registry.register(_Collector(self._collect))
        prometheus_client.ProcessCollector(registry=self._registry)

    async def text(self) -> tuple[bytes, str]:
        """Return the figures, and their content type."""
        self._status = await self._monitor.status()
        return prometheus_client.generate_latest(self._registry), _CONTENT_TYPE

    def _collect(self) -> Iterator[Any]:
        status, counters, work = self._status, self._monitor.counters, self._monitor.work()
        users = status["connections"] - status["without_login"]
        states = {("yes",): users, ("no",): status["without_login"]}
        yield _family(core.GaugeMetricFamily, "connections", "Open connections.", ["login"], states)
        for name, key, text in _GAUGES:
            yield core.GaugeMetricFamily(f"imapshield_{name}", text, status[key])
        for name, text, value in (
            ("connections_opened", "Connections that were accepted.", counters.opened),
            ("refused_connections", "Connections that bans have refused.", counters.refused),
            ("unbans", "Bans that an operator has ended.", counters.unbans),
            ("commands", "Commands that have arrived.", work.commands),
            ("traffic_bytes", "Octets in both directions, without TLS.", work.octets),
            ("command_busy_seconds", "Seconds of computing for commands.", work.busy),
        ):
            yield core.CounterMetricFamily(f"imapshield_{name}", text, value)
        for name, text, label, counter in (
            ("connections_closed", "Connections that have ended.", "reason", counters.closed),
            ("logins", "Logins, by their result.", "result", counters.logins),
            ("bans_begun", "Bans that have begun.", "limit", counters.bans),
            ("problems", "What clients do wrong, and errors.", "kind", counters.problems),
        ):
            values = {(key,): value for key, value in counter.items()}
            yield _family(core.CounterMetricFamily, name, text, [label], values)
        labels = ["limit", "action"]
        text = "Limits that were reached."
        yield _family(core.CounterMetricFamily, "limits", text, labels, counters.limits)
        yield from _nodes(status.get("nodes", ()))
        yield from _user_map(status.get("user_map"))
        yield from _guard_redis(status.get("guard_redis"))
        if certificate := status.get("certificate"):
            yield core.GaugeMetricFamily(
                "imapshield_certificate_expiry_timestamp_seconds",
                "When the certificate ends that ends first, in seconds since 1970.",
                certificate["expires"],
            )
        delay = self._monitor.delay
        bounds = [*map(str, BOUNDS), "+Inf"]
        buckets = list(zip(bounds, accumulate(delay.counts), strict=True))
        yield core.HistogramMetricFamily(
            *("imapshield_reactor_delay_seconds", "How late the reactor was."),
            *(buckets, delay.total),
        )
        info = core.GaugeMetricFamily("imapshield_build_info", "The version.", labels=["version"])
        info.add_metric([status["version"]], 1)
        yield info


def _nodes(nodes: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    """Yield the figures of each ``--backend``, whose names are those of the operator."""
    rows = {(node["node"],): node for node in nodes}
    if not rows:
        return
    states = {
        key: float(node["state"] in _TRIED)
        for key, node in rows.items()
        if node["state"] != "removed"
    }
    text = "Whether the node answers its checks; 0 after backend_failures failures in a row."
    yield _family(core.GaugeMetricFamily, "node_up", text, ["node"], states)
    for name, key, text in (
        ("node_users", "users", "Users with a session on the node."),
        ("node_sessions", "sessions", "Sessions of users on the node."),
        ("node_connections", "connections", "Connections to the node."),
    ):
        values = {labels: node[key] for labels, node in rows.items()}
        yield _family(core.GaugeMetricFamily, name, text, ["node"], values)
    values = {labels: node["failures"] for labels, node in rows.items()}
    text = "Failures to connect, and failed checks."
    yield _family(core.CounterMetricFamily, "node_failures", text, ["node"], values)


def _user_map(status: Mapping[str, str] | None) -> Iterator[Any]:
    """Yield the figure of ``--user-map``."""
    if status is not None and status["user_map"]:
        text = "Whether the user map can be read; a service that the last question was answered."
        yield core.GaugeMetricFamily("imapshield_user_map_up", text, not status["problem"])


def _guard_redis(status: Mapping[str, Any] | None) -> Iterator[Any]:
    """Yield the figures of ``--guard-redis``."""
    if status is None:
        return
    connected, others = int(status["connected"]), len(status["others"])
    for name, text, value in (
        ("guard_redis_up", "Whether Redis can be used.", connected),
        ("guard_redis_servers", "Other servers that share the guard.", others),
    ):
        yield core.GaugeMetricFamily(f"imapshield_{name}", text, value)
    for name, text, value in (
        ("guard_redis_reports", "Reports of other servers.", status["reports"]),
        ("guard_redis_refused", "Messages that were refused.", status["refused"]),
    ):
        yield core.CounterMetricFamily(f"imapshield_{name}", text, value)


class _Collector:
    """What a registry of prometheus_client asks."""

    def __init__(self, collect: Callable[[], Iterable[Any]]) -> None:
        self.collect = collect

    def describe(self) -> Iterable[Any]:
        """Return no names in advance."""
        return ()


_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def _family(kind: Any, name: str, text: str, labels: list[str], values: Mapping[Any, float]) -> Any:
    family = kind(f"imapshield_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family
