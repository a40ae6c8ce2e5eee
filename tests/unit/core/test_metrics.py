"""Counting without locks says what the library's own counters say."""

import random

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from src.core import metrics

BOUNDS = (0.001, 0.01, 1.0, 60.0)
Sample = tuple[str, frozenset[tuple[str, str]]]


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """A registry of the test's own, for what it makes."""
    own = CollectorRegistry()
    monkeypatch.setattr(metrics, "registry", own)
    return own


def samples(registry: CollectorRegistry) -> dict[Sample, float]:
    text = generate_latest(registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_durations_are_exposed_as_the_library_exposes_them(registry: CollectorRegistry) -> None:
    library = CollectorRegistry()
    theirs = Histogram("taken_seconds", "Taken.", ("task",), buckets=BOUNDS, registry=library)
    ours = metrics.DurationHistogram("taken_seconds", "Taken.", ("task",), BOUNDS)
    draw = random.Random(5)
    for seconds in [*BOUNDS, 0.0, 61.0, *(draw.uniform(0, 2) for _ in range(50))]:
        for task in ("one", 't"wo\n'):
            theirs.labels(task).observe(seconds)
            ours.labels(task).observe(seconds)
    found, wanted = samples(registry), samples(library)
    assert found.keys() == wanted.keys()
    assert all(value == pytest.approx(wanted[name]) for name, value in found.items())


def test_counts_are_exposed_as_the_library_exposes_them(registry: CollectorRegistry) -> None:
    library = CollectorRegistry()
    theirs = Counter("asked_total", "Asked.", ("method", "status"), registry=library)
    ours = metrics.Tallies("asked_total", "Asked.", ("method", "status"))
    for method, status, times in (("GET", "200", 3), ("POST", "200", 1), ("POST", "503", 2)):
        for _ in range(times):
            theirs.labels(method, status).inc()
            ours.labels(method, status).inc()
    assert samples(registry) == samples(library)


def test_a_name_is_taken_once() -> None:
    metrics.Tallies("asked_total", "Asked.", ())
    with pytest.raises(ValueError, match="uplicated"):
        metrics.Tallies("asked_total", "Asked.", ())
