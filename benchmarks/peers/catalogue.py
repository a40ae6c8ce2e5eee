"""The peers: how each is started and asked."""

import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.peers.environment import python_of, version_of
from benchmarks.peers.work import CHANNELS_LAST, MODELS, TASK
from benchmarks.serving import ROOT, Server, free_port, serving, worker_environment

_QUIET = {
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "NO_PROXY": "127.0.0.1,localhost",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True)
class Start:
    """What a command is made from: the environment's programs, the port, an empty folder, the models."""

    programs: Path
    port: int
    folder: Path
    models: Path

    def module(self, peer: str, *more: object) -> list[str]:
        """Returns how to run a peer's own server."""
        return [str(self.programs / "python"), "-m", f"benchmarks.peers.{peer}.server", str(self.port), *map(str, more)]


@dataclass(frozen=True)
class Call:
    """A request."""

    path: str
    body: Any


@dataclass(frozen=True)
class Peer:
    """A server that people use today; `tasks`: `noop`, `classify`, `generate`, `chat`.

    `call` makes a request of an input; `answer` takes the answer's value to what the work returned.
    """

    name: str
    title: str
    tasks: frozenset[str]
    package: str
    command: Callable[[Start], list[str]]
    health: str
    call: Callable[[str, Any], Call]
    answer: Callable[[Any], Any]
    start_seconds: float
    environment: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Its pinned version."""
        return version_of(self.environment or self.name, self.package)

    @contextmanager
    def running(self, task: str, bench: Bench, *, channels_last: bool = False, **env: str) -> Iterator[Server]:
        """Runs it until the block ends; raises `PeerUnavailableError` where it cannot be installed."""
        programs = python_of(self.environment or self.name).parent
        start = Start(programs, free_port(), bench.folder / f"{self.name}-{task}", bench.models)
        settings = {
            **worker_environment(),
            **_QUIET,
            **self.env,
            **env,
            "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(bench.folder),
            "RAY_TMPDIR": str(bench.folder),
            "TMPDIR": str(bench.folder),
            TASK: task,
            MODELS: str(bench.models),
            CHANNELS_LAST: "1" if channels_last else "0",
        }
        with serving(self.command(start), start.port, self.health, settings) as server:
            yield server

    def check(self, server: Server, call: Call, expected: Any) -> None:
        """Raises `RuntimeError` unless the answer to a call is the one expected; scores may differ by rounding."""
        answer = self.answer(server.post(call.path, call.body))
        if isinstance(expected, dict):
            same = answer["label"] == expected["label"] and abs(answer["score"] - expected["score"]) < 1e-3
        else:
            same = answer == expected
        if not same:
            raise RuntimeError(f"{self.title} answers {answer!r}, not {expected!r}")


def _bento(start: Start) -> list[str]:
    program = str(start.programs / "bentoml")
    return [program, "serve", "benchmarks.peers.bentoml.server:Service", "--host", "127.0.0.1", "-p", str(start.port)]


def _transformers(start: Start, *more: str) -> list[str]:
    program, model = str(start.programs / "transformers"), str(start.models / "llama")
    return [program, "serve", model, "--host", "127.0.0.1", "--port", str(start.port), "--device", "cpu", *more]


def _litellm(start: Start) -> list[str]:
    program, config = str(start.programs / "litellm"), str(Path(__file__).with_name("litellm") / "config.yaml")
    return [program, "--config", config, "--host", "127.0.0.1", "--port", str(start.port), "--num_workers", "1"]


def _v2(task: str, value: Any) -> Call:
    tensor = {"name": "inputs", "shape": [1, 1], "datatype": "BYTES", "data": [value]}
    return Call("/v2/models/model/infer", {"inputs": [tensor]})


def _v2_answer(answer: Any) -> Any:
    return _parsed(answer["outputs"][0]["data"][0])


def _parsed(text: str) -> Any:
    """Returns what was written as `label score`, or the text."""
    label, _, score = text.rpartition(" ")
    return {"label": label, "score": float(score)} if label else text


def _plain(path: str) -> Callable[[str, Any], Call]:
    return lambda task, value: Call(path, {"inputs": value})


def _completion(task: str, value: Any) -> Call:
    # Greedy and its own model unless the request says otherwise.
    return Call("/v1/completions", {"prompt": value["text"], "max_tokens": value["new_tokens"]})


_SMALL = frozenset({"noop", "classify"})
_GENERATES = frozenset({"generate"})

PEERS = (
    Peer(
        "litserve",
        "LitServe",
        _SMALL,
        "litserve",
        lambda start: start.module("litserve"),
        "/health",
        _plain("/predict"),
        lambda answer: answer["output"],
        6,
    ),
    Peer(
        "bentoml",
        "BentoML",
        _SMALL,
        "bentoml",
        _bento,
        "/readyz",
        lambda task, value: Call("/infer", {"inputs": value if task == "noop" else [value]}),
        lambda answer: answer[0] if isinstance(answer, list) else answer["output"],
        8,
    ),
    Peer(
        "ray_serve",
        "Ray Serve",
        _SMALL,
        "ray",
        lambda start: start.module("ray_serve"),
        "/-/healthz",
        _plain("/"),
        lambda answer: answer["output"],
        20,
    ),
    Peer(
        "mlserver",
        "MLServer",
        _SMALL,
        "mlserver",
        lambda start: start.module("mlserver", start.folder, free_port(), free_port()),
        "/v2/models/model/ready",
        _v2,
        _v2_answer,
        8,
    ),
    Peer(
        "triton",
        "Triton (PyTriton)",
        _SMALL,
        "nvidia-pytriton",
        lambda start: start.module("triton", free_port(), free_port()),
        "/v2/models/model/ready",
        _v2,
        _v2_answer,
        8,
        # Its stub for Python takes the first libpython that it finds; that has to be the one of the environment.
        env={"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))},
    ),
    Peer(
        "transformers_serve",
        "transformers serve",
        _GENERATES,
        "transformers",
        _transformers,
        "/health",
        _completion,
        lambda answer: answer["choices"][0]["text"],
        12,
    ),
    Peer(
        "transformers_serve_cb",
        "transformers serve, continuous batching",
        _GENERATES,
        "transformers",
        lambda start: _transformers(start, "--continuous-batching", "--cb-num-blocks", "128"),
        "/health",
        _completion,
        lambda answer: answer["choices"][0]["text"],
        12,
        environment="transformers_serve",
    ),
    Peer(
        "litellm",
        "LiteLLM",
        frozenset({"chat"}),
        "litellm",
        _litellm,
        "/health/liveliness",
        lambda task, value: Call("/v1/chat/completions", value),
        lambda answer: answer["choices"][0]["message"]["content"],
        20,
        env={"OLLAMA_API_BASE": "http://127.0.0.1:9"},
    ),
)


def serving_task(bench: Bench, task: str) -> list[Peer]:
    """Returns the peers that serve a task; none where a run goes without peers."""
    return [peer for peer in PEERS if bench.peers and task in peer.tasks]
