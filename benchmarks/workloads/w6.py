"""W6: cold load of a 1 GB model to its first token, and swap between two that do not fit together."""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Unit
from benchmarks.comparing import medians
from benchmarks.registering import register
from benchmarks.serving import ROOT, Server, ours, plain_environment, worker_environment

PATH = "/inference/infer"
BIG, TINY = ("big-one", "big-two"), "tiny"
ONE_TOKEN = {"max_new_tokens": 1, "min_length": 0, "do_sample": False}
_FITS = 2.1
"""The memory budget in sizes of a model's weights: enough for one with what it needs to run, not for two."""
_MAKE = """
import sys
from pathlib import Path
from tests.tiny_models import tiny_llama

folder = Path(sys.argv[1])
tiny_llama(folder / "tiny")
for seed, name in enumerate(("big-one", "big-two")):
    tiny_llama(folder / name, seed=seed, hidden=1536, layers=12)  # about 1 GB of float32
"""
_LOAD = """
import contextlib, importlib, json, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

def load(path):
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(path, dtype="auto", local_files_only=True).eval()
    loaded = time.perf_counter() - started
    with torch.inference_mode():
        model.generate(**tokenizer("Hello", return_tensors="pt"), max_new_tokens=1, do_sample=False)
    return {"load_seconds": loaded, "first_token_seconds": time.perf_counter() - started}

"""
_NEEDED = f"""{_LOAD}
load(sys.argv[1])
print(json.dumps([name for name in sys.modules if name != "__main__"]))
"""
_DIRECT = f"""{_LOAD}
for name in json.loads(sys.argv[2]):
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
first, second = load(sys.argv[1]), load(sys.argv[1])
print(json.dumps({{**first, "second_load_seconds": second["load_seconds"]}}))
"""


def units(bench: Bench) -> list[Unit]:
    """Returns the service."""
    return [Unit("ours", 75, partial(_ours, bench))]


def _ours(bench: Bench) -> dict[str, Any]:
    folder, data_dir = bench.fresh("w6-models"), bench.fresh("w6")
    _python(_MAKE, str(folder))
    size = (folder / BIG[0] / "model.safetensors").stat().st_size
    with ours(data_dir, AIML_MEMORY_BUDGET=str(int(size * _FITS))) as server:
        for name in BIG:
            register(server, name, folder / name, "text-generation", "transformers")
    with ours(data_dir, AIML_MEMORY_BUDGET=str(int(size * _FITS))) as server:
        _until_preloaded(server)
        first = _cold(server, BIG[0])
        rounds, modules = [], _python(_NEEDED, str(folder / TINY))
        for _ in range(bench.rounds):
            server.post("/inference/cache/clear", {})
            rounds.append({**_cold(server, BIG[0]), **_direct(folder, modules)})
        swaps = [_cold(server, name)["cold_request_to_first_token_seconds"] for name in (BIG[1], BIG[0]) * bench.rounds]
    with ours(data_dir, AIML_WORKERS__PRELOAD="never") as server:
        fresh = _cold(server, BIG[0])
    for turn in rounds:
        turn["engine_load_to_from_pretrained"] = turn["engine_load_seconds"] / turn["load_seconds"]
        turn["engine_load_to_second_from_pretrained"] = turn["engine_load_seconds"] / turn["second_load_seconds"]
        direct_first = turn["first_token_seconds"]
        turn["cold_request_to_direct_first_token"] = turn["cold_request_to_first_token_seconds"] / direct_first
    return {
        "model_bytes": size,
        "rounds": rounds,
        "swaps": swaps,
        **medians(rounds),
        "first_ever_request_seconds": first["cold_request_to_first_token_seconds"],
        "swap_to_first_token_seconds": sorted(swaps)[len(swaps) // 2],
        "without_preloader_seconds": fresh["cold_request_to_first_token_seconds"],
    }


def _cold(server: Server, name: str) -> dict[str, float]:
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
    if answer.get("success") is not True:
        raise RuntimeError(str(answer))
    loaded = server.get("/inference/stats")["models"][name]["loaded"][0]
    return {
        "cold_request_to_first_token_seconds": total,
        "whole_load_seconds": loaded["load_seconds"],
        "engine_load_seconds": loaded["engine_load_seconds"],
    }


def _direct(folder: Path, modules: str) -> dict[str, float]:
    """Returns seconds of a first load in a process that has imported everything, to its first token, and of a second.

    A second load finds patterns compiled and caches filled, which no process has that was just started.
    """
    found: dict[str, float] = json.loads(_python(_DIRECT, str(folder / BIG[0]), modules))
    return found


def _python(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**plain_environment(), **worker_environment()},
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return done.stdout


def _until_preloaded(server: Server) -> None:
    end = time.perf_counter() + 120
    while server.get("/inference/stats")["preloader"]["state"] != "ready" and time.perf_counter() < end:
        time.sleep(0.1)
    time.sleep(1)
