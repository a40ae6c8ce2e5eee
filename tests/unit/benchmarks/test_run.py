import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import chart, comparing, report, results
from benchmarks.comparing import Pair, interleaved
from benchmarks.state import State, fingerprint
from benchmarks.targets import TARGETS
from src.core.config import ROOT

PINS = sorted((ROOT / "benchmarks" / "peers").glob("*/requirements.txt"))


def runs(name: str, log: list[str], *rates: float) -> Callable[[], dict[str, Any]]:
    left: Iterator[float] = iter(rates)

    def run() -> dict[str, Any]:
        log.append(name)
        return {"requests_per_second": next(left)}

    return run


def test_server_and_limit_take_turns_and_the_ratio_is_the_median_of_the_rounds() -> None:
    log: list[str] = []
    pair = Pair(runs("server", log, 10, 30, 50), "requests_per_second", runs("limit", log, 10, 10, 100))
    measure = interleaved({"c1": pair}, 3)["measures"]["c1"]
    assert log == ["server", "limit"] * 3
    assert measure["ratio"] == 1.0
    assert (measure["server"]["requests_per_second"], measure["limit"]["requests_per_second"]) == (30, 10)


def test_of_times_the_difference_is_kept_too() -> None:
    pair = Pair(lambda: {"p50_ms": 12.0}, "p50_ms", lambda: {"p50_ms": 10.0}, is_time=True)
    assert interleaved({"first": pair}, 1)["measures"]["first"]["difference"] == 2.0


def test_what_is_very_slow_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "_SLOW", 0.0)
    log: list[str] = []
    found = interleaved({"c1": Pair(runs("server", log, 10), "requests_per_second")}, 3)
    assert found["measures"]["c1"]["runs"] == len(log) == 1


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    State(tmp_path / "state.json", "mark").put("W1 ours", {"figure": 1})
    state = State(tmp_path / "state.json", "mark")
    assert state.resume() == 1
    assert state.get("W1 ours") == {"figure": 1}
    assert state.get("W1 other") is None


@pytest.mark.parametrize("change", ["mark", "age", "garbage", "complete"])
def test_measurements_of_another_run_are_not_taken(tmp_path: Path, change: str) -> None:
    path = tmp_path / "state.json"
    state = State(path, "mark")
    state.put("W1 ours", {})
    if change == "age":
        path.write_text(json.dumps({**json.loads(path.read_text()), "started": time.time() - 48 * 3600}))
    elif change == "garbage":
        path.write_text("{")
    elif change == "complete":
        state.forget(["W1"])
    assert State(path, "other" if change == "mark" else "mark").resume() == 0


def test_a_part_that_is_complete_leaves_the_rest_of_an_interrupted_run(tmp_path: Path) -> None:
    state = State(tmp_path / "state.json", "mark")
    state.put("W1 ours", {})
    state.put("W2 ours", {})
    state.forget(["W1"])
    rest = State(tmp_path / "state.json", "mark")
    rest.resume()
    assert (rest.get("W1 ours"), rest.get("W2 ours")) == (None, {})


def test_measurements_belong_to_the_code_and_the_settings(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("1")
    before = fingerprint(tmp_path, seconds=3)
    assert before == fingerprint(tmp_path, seconds=3)
    assert before != fingerprint(tmp_path, seconds=1)
    (tmp_path / "src" / "a.py").write_text("2")
    assert before != fingerprint(tmp_path, seconds=3)


def test_the_chart_has_a_bar_for_each_server_and_a_line_for_each_limit() -> None:
    groups = [chart.Group("A < B", [("ours", 2.0), ("other & co", 0.5)]), chart.Group("C", [("ours", 1.0)])]
    drawn = ElementTree.fromstring(chart.draw("T", groups))
    kinds = [element.get("class") for element in drawn.iter()]
    assert (kinds.count("ours"), kinds.count("peer"), kinds.count("limit")) == (2, 1, 2)
    widths = [float(e.get("width", 0)) for e in drawn.iter() if e.get("class") in ("ours", "peer")]
    assert widths[0] == pytest.approx(4 * widths[1], rel=0.01)


def test_the_page_says_what_the_results_say() -> None:
    found = results.read()
    assert found, "benchmarks/results is empty: make bench"
    assert report.figures(found) in report.PAGE.read_text()
    assert report.drawn(found) == report.CHART.read_text()


def test_every_target_finds_its_figure() -> None:
    found = results.read()
    measured = {target for target, _ in results.reached(found)}
    assert measured == {target for target in TARGETS if target.workload in found}


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.parent.name)
def test_a_peers_packages_are_pinned_and_name_no_host(path: Path) -> None:
    for line in path.read_text().splitlines():
        assert "==" in line, line
        assert "/" not in line, line
