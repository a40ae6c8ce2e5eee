"""Every metric of the service, named once. Prometheus conventions: base units, `_total` for counters."""

from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

registry = CollectorRegistry()


class Tally:
    """A count of one combination of labels; only the event loop's thread counts, so that it needs no lock."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def inc(self) -> None:
        """Counts one."""
        self.count += 1


class Durations:
    """How many durations of one combination of labels fell below each bound (seconds); counted as a `Tally` is."""

    __slots__ = ("bounds", "counts", "seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class Tallies(Collector):
    """A counter of what every request counts: the library's own, with its lock, takes nine times as long."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._family = name, text, labels
        self._tallies: dict[tuple[str, ...], Tally] = {}
        registry.register(self)

    def labels(self, *values: str) -> Tally:
        """Returns the tally of these label values."""
        return self._tallies.setdefault(values, Tally())

    def describe(self) -> Iterator[Metric]:
        """Yields the name alone, for the registry's check that no two are equal."""
        name, text, labels = self._family
        yield CounterMetricFamily(name, text, labels=labels)

    def collect(self) -> Iterator[Metric]:
        """Yields the counts."""
        name, text, labels = self._family
        family = CounterMetricFamily(name, text, labels=labels)
        for values, tally in list(self._tallies.items()):
            family.add_metric(values, tally.count)
        yield family


class DurationHistogram(Collector):
    """A histogram of what every request takes; see `Tallies`."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...], bounds: tuple[float, ...]) -> None:
        self._family = name, text, labels
        self._bounds = bounds
        self._durations: dict[tuple[str, ...], Durations] = {}
        registry.register(self)

    def labels(self, *values: str) -> Durations:
        """Returns the durations of these label values."""
        return self._durations.setdefault(values, Durations(self._bounds))

    def describe(self) -> Iterator[Metric]:
        """Yields the name alone, for the registry's check that no two are equal."""
        name, text, labels = self._family
        yield HistogramMetricFamily(name, text, labels=labels)

    def collect(self) -> Iterator[Metric]:
        """Yields the counts, cumulative as Prometheus has them."""
        name, text, labels = self._family
        family = HistogramMetricFamily(name, text, labels=labels)
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for values, found in list(self._durations.items()):
            family.add_metric(values, list(zip(bounds, accumulate(found.counts), strict=True)), found.seconds)
        yield family


inferences = Tallies("aiml_inferences_total", "Inference requests by outcome.", ("task", "engine", "outcome"))
inference_seconds = DurationHistogram(
    "aiml_inference_duration_seconds",
    "Time from the request's arrival to its answer.",
    ("task", "engine"),
    (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300),
)
loaded_models = Gauge("aiml_loaded_models", "Models loaded at the moment.", registry=registry)
model_loads = Counter("aiml_model_loads_total", "Models loaded since the start.", registry=registry)
http_requests = Tallies("aiml_http_requests_total", "HTTP requests by route and status.", ("method", "route", "status"))
result_lookups = Counter(
    "aiml_result_cache_lookups_total",
    "Results looked up in the result cache, by outcome: hit, miss, unreachable.",
    ("outcome",),
    registry=registry,
)
limited_requests = Counter(
    "aiml_limited_requests_total",
    "Requests refused because their caller asked too much, by limit: rate, concurrent.",
    ("limit",),
    registry=registry,
)


@lru_cache(maxsize=1024)
def inference_outcome(task: str, engine: str, outcome: str) -> Tally:
    """Returns the counter of one outcome; looking labels up costs more than counting."""
    return inferences.labels(task, engine, outcome)


@lru_cache(maxsize=1024)
def inference_duration(task: str, engine: str) -> Durations:
    """Returns the histogram of one task and engine."""
    return inference_seconds.labels(task, engine)


@lru_cache(maxsize=1024)
def http_outcome(method: str, route: str, status: int) -> Tally:
    """Returns the counter of one route and status."""
    return http_requests.labels(method, route, str(status))


@lru_cache(maxsize=8)
def result_lookup(outcome: str) -> Counter:
    """Returns the counter of one outcome."""
    return result_lookups.labels(outcome)


@lru_cache(maxsize=8)
def limited(limit: str) -> Counter:
    """Returns the counter of one limit."""
    return limited_requests.labels(limit)


def exposition() -> tuple[bytes, str]:
    """Returns the metrics as text, and its content type."""
    return generate_latest(registry), CONTENT_TYPE_LATEST
