"""Every metric of the service, named once. Prometheus conventions: base units, `_total` for counters."""

from functools import lru_cache

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

registry = CollectorRegistry()

inferences = Counter(
    "aiml_inferences_total",
    "Inference requests by outcome.",
    ("task", "engine", "outcome"),
    registry=registry,
)
inference_seconds = Histogram(
    "aiml_inference_duration_seconds",
    "Time from the request's arrival to its answer.",
    ("task", "engine"),
    buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 60, 300),
    registry=registry,
)
loaded_models = Gauge("aiml_loaded_models", "Models loaded at the moment.", registry=registry)
model_loads = Counter("aiml_model_loads_total", "Models loaded since the start.", registry=registry)
http_requests = Counter(
    "aiml_http_requests_total", "HTTP requests by route and status.", ("method", "route", "status"), registry=registry
)
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
def inference_outcome(task: str, engine: str, outcome: str) -> Counter:
    """Returns the counter of one outcome; looking labels up costs more than counting."""
    return inferences.labels(task, engine, outcome)


@lru_cache(maxsize=1024)
def inference_duration(task: str, engine: str) -> Histogram:
    """Returns the histogram of one task and engine."""
    return inference_seconds.labels(task, engine)


@lru_cache(maxsize=1024)
def http_outcome(method: str, route: str, status: int) -> Counter:
    """Returns the counter of one route and status."""
    return http_requests.labels(method, route, status)


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
