"""W1: a no-op task with everything on, against typed FastAPI and against the model called directly."""

import time
from pathlib import Path
from typing import Any

from benchmarks.running import load, serving
from benchmarks.servers.noop import NoopEngine, NoopHandler

BODY = {"task": "noop", "engine": "noop", "model_name": "noop", "data": {"inputs": "Hello"}, "options": {}}
PATH = "/inference/infer"


def register(data_dir: Path) -> None:
    """Registers a model for the no-op engine, so that the registry and provenance are in use."""
    from src.core.config import load_settings
    from src.core.model_manager import ModelManager

    folder = data_dir / "noop-model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    models = ModelManager(load_settings(data_dir=data_dir))
    models.register_model_to_mlflow("noop", "local", folder, {"task": "noop", "engine": "noop"}, stage="production")
    models.close()


def run(folder: Path, seconds: float) -> dict[str, Any]:
    """Returns requests/s, p50 and p99 at concurrency 1 and 32, and the ratios to typed FastAPI."""
    data_dir = folder / "w1"
    register(data_dir)
    figures: dict[str, Any] = {"direct": _direct()}
    rounds: list[dict[str, Any]] = []
    with (
        serving("benchmarks.servers.typed_fastapi", arguments=("{port}",), health="/openapi.json") as typed,
        serving("benchmarks.servers.ours", data_dir=data_dir) as process,
        serving("benchmarks.servers.ours", data_dir=data_dir, AIML_WORKERS__ISOLATION="thread") as thread,
    ):
        servers = {"typed_fastapi": typed, "own_process": process, "thread": thread}
        for name, server in servers.items():
            answer = server.post(PATH, BODY)
            assert answer["success"] is True, (name, answer)
        # In turn, several times: the machine's speed drifts, and the ratio is what counts.
        for _ in range(3):
            rounds.append(
                {
                    name: {f"c{c}": load(server.url + PATH, BODY, c, seconds) for c in (1, 32)}
                    for name, server in servers.items()
                }
            )
    for name in ("typed_fastapi", "own_process", "thread"):
        figures[name] = {c: _median([turn[name][c] for turn in rounds]) for c in ("c1", "c32")}
    ratios = {
        f"{name}_{c}": _middle(
            [t[name][c]["requests_per_second"] / t["typed_fastapi"][c]["requests_per_second"] for t in rounds]
        )
        for name in ("own_process", "thread")
        for c in ("c1", "c32")
    }
    return {
        "figures": figures,
        "ratios": {**ratios, "own_process_p99_ms_c32": figures["own_process"]["c32"]["p99_ms"]},
    }


def _direct() -> dict[str, float]:
    handler, engine = NoopHandler(), NoopEngine()
    started, count = time.perf_counter(), 100_000
    for _ in range(count):
        prepared = handler.preprocess({"inputs": "Hello"}, {})
        handler.postprocess(engine.infer("noop", prepared["inputs"], {}), {})
    return {"calls_per_second": count / (time.perf_counter() - started)}


def _median(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: _middle([row[key] for row in rows]) for key in rows[0]}


def _middle(values: list[Any]) -> Any:
    return sorted(values)[len(values) // 2]
