"""W6: cold load of a 1 GB model, request to first token; swap between two that do not fit together."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.running import ROOT, serving
from src.inference.workers.launching import ENVIRONMENT
from tests.tiny_models import tiny_llama

PATH = "/inference/infer"
ONE_TOKEN = {"max_new_tokens": 1, "min_length": 0, "do_sample": False}
_DIRECT = """
import json, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

def load(path):
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto", local_files_only=True).eval()
    loaded = time.perf_counter() - started
    with torch.inference_mode():
        model.generate(**tokenizer("Hello", return_tensors="pt"), max_new_tokens=1, do_sample=False)
    return loaded, time.perf_counter() - started

load(sys.argv[2])  # a tiny one: now everything is imported
print(json.dumps(load(sys.argv[1])))
"""


def make(folder: Path, seed: int) -> Path:
    """Saves a random Llama of about 1 GB (float32) and returns its folder."""
    return tiny_llama(folder, seed=seed, hidden=1536, layers=12)


def run(folder: Path, seconds: float) -> dict[str, Any]:
    """Returns seconds, and the ratio of our load to `from_pretrained` in a process with everything imported."""
    from src.core.config import load_settings
    from src.core.model_manager import ModelManager

    data_dir = folder / "w6"
    models = ModelManager(load_settings(data_dir=data_dir))
    sizes = {}
    for seed, name in enumerate(("big-one", "big-two")):
        path = make(folder / name, seed)
        sizes[name] = (path / "model.safetensors").stat().st_size
        tags = {"task": "text-generation", "engine": "transformers"}
        models.register_model_to_mlflow(name, "local", path, tags, stage="production")
    models.close()
    direct_load, direct_first = _direct(folder / "big-one", tiny_llama(folder / "tiny"))
    budget = int(max(sizes.values()) * 1.9)
    with serving("src.main", data_dir=data_dir, AIML_MEMORY_BUDGET=str(budget)) as server:
        _until_preloaded(server)
        first = _cold(server, "big-one")
        loads = []
        for _ in range(5):
            server.post("/inference/cache/clear", {})
            loads.append(_cold(server, "big-one"))
        swaps = [_cold(server, name) for name in ("big-two", "big-one") * 3]
    with serving("src.main", data_dir=data_dir, AIML_WORKERS__PRELOAD="never") as server:
        fresh = _cold(server, "big-one")
    load, engine, total = (_middle([entry[key] for entry in loads]) for key in ("load", "engine", "total"))
    return {
        "figures": {
            "model_bytes": sizes["big-one"],
            "from_pretrained_seconds": direct_load,
            "from_pretrained_to_first_token_seconds": direct_first,
            "load_seconds": load,
            "engine_load_seconds": engine,
            "first_ever_request_seconds": first["total"],
            "cold_request_to_first_token_seconds": total,
            "swap_to_first_token_seconds": _middle([entry["total"] for entry in swaps]),
            "without_preloader_seconds": fresh["total"],
        },
        # from_pretrained only maps the file: the weights are in memory once the first token is there.
        "ratios": {
            "engine_load_to_from_pretrained": engine / direct_load,
            "cold_request_to_from_pretrained_and_first_token": total / direct_first,
        },
    }


def _cold(server: Any, name: str) -> dict[str, float]:
    body = {
        "task": "text-generation",
        "engine": "transformers",
        "model_name": name,
        "data": {"inputs": "Hello"},
        "options": ONE_TOKEN,
    }
    started = time.perf_counter()
    answer = server.post(PATH, body)
    total = time.perf_counter() - started
    assert answer["success"], answer
    loaded = server.get("/inference/stats")["models"][name]["loaded"][0]
    return {"total": total, "load": loaded["load_seconds"], "engine": loaded["engine_load_seconds"]}


def _direct(path: Path, tiny: Path) -> tuple[float, float]:
    """Returns seconds of a first load, and to its first token, in a process that has everything imported."""
    runs = [_direct_once(path, tiny) for _ in range(5)]
    return _middle([load for load, _ in runs]), _middle([first for _, first in runs])


def _direct_once(path: Path, tiny: Path) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-c", _DIRECT, str(path), str(tiny)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        # The same settings that our workers have, or the comparison would be with a slower process.
        env={**ENVIRONMENT, **os.environ},
    )
    load, first = json.loads(done.stdout)
    return load, first


def _until_preloaded(server: Any) -> None:
    while server.get("/inference/stats")["preloader"]["state"] == "starting":
        time.sleep(0.1)
    time.sleep(1)


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
