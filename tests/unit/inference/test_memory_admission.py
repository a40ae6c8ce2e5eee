"""MemoryAdmission: what is booked for a load, and where it will run."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from src.core.gpu_manager import Device
from src.core.settings_sections import ModelSettings
from src.inference import vram_estimator
from src.inference.admission import PeakRecords
from src.inference.cache import LoadedModel, ModelKey
from src.inference.memory_admission import MemoryAdmission
from src.inference.types import ServableModel
from src.inference.vram_estimator import MemoryEstimate
from src.inference.workers import launching
from src.inference.workers.launching import Launcher

pytestmark = pytest.mark.anyio

GB = 10**9


class Machine:
    """A GpuManager of a machine with these devices."""

    budget_bytes = None

    def __init__(self, *names: str) -> None:
        self._names = names

    def devices(self) -> list[Device]:
        return [Device(name, 8 * GB, 4 * GB, name) for name in self._names]

    def free_bytes(self, device: str) -> int:
        return 4 * GB


def admission(tmp_path: Path, *devices: str, folder: Path | None = None, **settings: Any) -> MemoryAdmission:
    async def files(model: Any) -> Path | None:
        return folder

    machine: Any = Machine(*devices)
    return MemoryAdmission(machine, PeakRecords(tmp_path / "peaks.json"), files, **settings)


class Weighed:
    """A worker that takes so many bytes."""

    def __init__(self, taken: int) -> None:
        self.pid = os.getpid()
        self.taken = taken

    def memory_bytes(self) -> int:
        return self.taken


async def test_what_a_model_really_takes_is_booked_unless_it_leaves(tmp_path: Path) -> None:
    machine: Any = Machine("cpu")
    machine.budget_bytes = 1000
    held = MemoryAdmission(machine, PeakRecords(tmp_path / "peaks.json"), no_files)
    key = ModelKey("m", "e", "t", "h", None, None)
    entry: Any = LoadedModel(key, ServableModel("m", "m"), None, None)  # type: ignore[arg-type]
    await held.admit(entry, list, no_eviction)
    entry.worker = Weighed(1001)
    held.measure(entry, leaving=True)
    assert (held.booked(entry), held.overbooked) == (0, False)
    held.measure(entry)
    assert (held.booked(entry), held.overbooked) == (1001, True)
    held.gone(entry)
    assert not held.overbooked


async def no_files(model: Any) -> None:
    return None


async def no_eviction() -> bool:
    return False


@pytest.mark.parametrize(
    ("devices", "configured", "asked", "on_host"),
    [
        (("cpu",), "auto", None, True),
        (("cuda:0", "cpu"), "auto", None, False),
        (("cuda:0", "cpu"), "auto", "cpu", True),
        (("cuda:0", "cpu"), "cpu", None, True),
        (("cuda:0", "cpu"), "cpu", "cuda:0", False),
    ],
)
def test_only_what_runs_on_the_host_may_be_forked(
    tmp_path: Path, devices: tuple[str, ...], configured: str, asked: str | None, on_host: bool
) -> None:
    assert admission(tmp_path, *devices, device=configured).on_host(asked) is on_host


async def test_a_model_for_a_gpu_starts_afresh_beside_a_ready_preloader(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ready:
        state = "ready"

        async def fork(self, connection: socket.socket) -> str:
            return "forked"

        def start(self, modules: list[str]) -> None: ...

    launcher: Any = Launcher("auto")
    launcher.preloader = Ready()
    monkeypatch.setattr(launching, "start_fresh", lambda connection: "fresh")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert await launcher.launch(theirs, ["torch"]) == "forked"
        assert await launcher.launch(theirs, ["torch"], fork=False) == "fresh"


@pytest.mark.parametrize(
    ("asked", "own", "estimated"),
    [
        ((None, None), {}, ("cuda:0", "int8")),
        ((None, None), {"device": "cpu", "dtype": "nf4"}, ("cpu", "nf4")),
        ((None, None), {"dtype": "auto"}, ("cuda:0", "auto")),
        (("cpu", "float32"), {"device": "cuda:0", "dtype": "nf4"}, ("cpu", "float32")),
    ],
)
async def test_room_is_made_for_the_format_that_counts(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: tuple[str | None, str | None],
    own: dict[str, Any],
    estimated: tuple[str, str],
) -> None:
    seen: list[tuple[str, str]] = []

    def estimate(path: Path, *, dtype: str, device: str, runtime_bytes: int) -> MemoryEstimate:
        seen.append((device, dtype))
        return MemoryEstimate(GB, 0, 0, "safetensors headers", 10)

    async def never() -> bool:
        return False

    monkeypatch.setattr(vram_estimator, "estimate", estimate)
    key = ModelKey("m", "transformers", "text-generation", "h", *asked)
    loader: Any = never
    entry = LoadedModel(key, ServableModel("m", "bytes"), loader, asyncio.get_running_loop().create_future())
    admitting = admission(
        tmp_path, "cuda:0", "cpu", folder=tmp_path, dtype="int8", own=lambda model: ModelSettings(**own)
    )
    await admitting.admit(entry, list, never)
    assert seen == [estimated]
    assert admitting.booked(entry) == GB
