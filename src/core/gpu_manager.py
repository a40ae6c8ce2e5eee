"""GpuManager: which devices models can be loaded onto, and how much memory each has free."""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from src.core.host_memory import host_memory

logger = logging.getLogger(__name__)

_NUMBER = "0123456789"


@dataclass(frozen=True, slots=True)
class Device:
    """A place for models, named as torch names it (`cuda:0`, `cpu`); sizes in bytes."""

    name: str
    total_bytes: int
    free_bytes: int
    label: str


@dataclass(frozen=True, slots=True)
class _Gpu:
    nvml: Any
    handle: Any
    label: str


class GpuManager:
    """Asks NVML for the GPUs that torch would see, and the kernel for the host's memory.

    `budget_bytes` caps what is told of the host. `root` is where /proc and /sys are looked for, `nvml`
    imports the library, `environment` holds CUDA_VISIBLE_DEVICES. A machine without NVIDIA's driver or
    library has no GPUs, and that is no error. Safe to use from any thread.
    """

    def __init__(
        self,
        *,
        budget_bytes: int | None = None,
        root: Path = Path("/"),
        nvml: Callable[[], Any] | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.budget_bytes = budget_bytes
        self._root = root
        self._import_nvml = nvml or _pynvml
        self._environment = environment
        self._lock = threading.Lock()
        self._nvml: Any = None
        self._gpus: list[_Gpu] | None = None

    def devices(self) -> list[Device]:
        """Returns the devices in the order in which torch would prefer them: GPUs, then the host.

        A GPU whose memory cannot be measured (it fell off the bus) is shown with sizes of 0.
        """
        measured = [self._memory(gpu) or (0, 0, gpu.label) for gpu in self._visible()]
        return [*(Device(f"cuda:{index}", *sizes) for index, sizes in enumerate(measured)), self._host()]

    def free_bytes(self, device: str) -> int | None:
        """Returns the memory free on a device; None where it cannot be measured, or the device is not there."""
        name = memory_of(device)
        if name == "cpu":
            return self._host().free_bytes
        gpus, place = self._visible(), name.partition(":")[2]
        if not place.isdecimal() or int(place) >= len(gpus):
            return None
        measured = self._memory(gpus[int(place)])
        return None if measured is None else measured[1]

    def close(self) -> None:
        """Lets NVML go; the next question starts it again."""
        with self._lock:
            nvml, self._nvml, self._gpus = self._nvml, None, None
            if nvml is not None:
                try:
                    nvml.nvmlShutdown()
                except nvml.NVMLError as exc:
                    logger.debug("NVML did not shut down: %s", exc)

    def _host(self) -> Device:
        total, free, label = host_memory(self._root)
        if self.budget_bytes is not None and self.budget_bytes < total:
            total, free, label = self.budget_bytes, min(free, self.budget_bytes), "host memory (AIML_MEMORY_BUDGET)"
        return Device("cpu", total, free, label)

    def _memory(self, gpu: _Gpu) -> tuple[int, int, str] | None:
        """Returns total, free and label of a GPU."""
        try:
            memory = gpu.nvml.nvmlDeviceGetMemoryInfo(gpu.handle)
        except gpu.nvml.NVMLError as exc:
            if exc.value != gpu.nvml.NVML_ERROR_NOT_SUPPORTED:
                logger.debug("NVML does not tell the memory of %s: %s", gpu.label, exc)
                return None
            host = self._host()  # an integrated GPU (Jetson, GB10) has no memory of its own
            return host.total_bytes, host.free_bytes, f"{gpu.label}, in the host's memory"
        return int(memory.total), int(memory.free), gpu.label

    def _visible(self) -> list[_Gpu]:
        with self._lock:
            if self._gpus is None:
                self._gpus = self._discover()
            return self._gpus

    def _discover(self) -> list[_Gpu]:
        try:
            nvml = self._import_nvml()
            nvml.nvmlInit()
        except Exception as exc:
            logger.debug("no GPUs: %s", exc)
            return []
        self._nvml = nvml
        try:
            return visible_gpus(nvml, self._environment.get("CUDA_VISIBLE_DEVICES"))
        except Exception as exc:
            logger.debug("NVML does not list the GPUs: %s", exc)
            return []


def memory_of(device: str) -> str:
    """Returns the device whose memory a device uses: `cuda` is `cuda:0`, Apple's `mps` shares the host's."""
    if device == "cuda":
        return "cuda:0"
    return device if device.startswith("cuda:") else "cpu"


def visible_gpus(nvml: Any, variable: str | None) -> list[_Gpu]:
    """Returns the GPUs in CUDA's numbering, given CUDA_VISIBLE_DEVICES.

    Numbers and UUIDs are read as torch reads them (torch/cuda/__init__.py). Where a GPU is cut into MIG
    instances CUDA sees one instance and nothing else, the first one (NVIDIA's MIG user guide).
    """
    physical = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    if variable is not None and variable.startswith("MIG-"):
        instances = [instance for gpu in physical for instance in _instances(nvml, gpu)]
        chosen = _by_uuid(nvml, instances, variable, "MIG-")[:1]
        return [_gpu(nvml, handle) for handle in chosen]
    if variable is None:
        seen = physical
    elif variable.startswith("GPU-"):
        seen = _by_uuid(nvml, physical, variable, "GPU-")
    else:
        seen = _by_number(physical, variable)
    first = next((instance for gpu in seen for instance in _instances(nvml, gpu)), None)
    return [_gpu(nvml, handle) for handle in (seen if first is None else [first])]


def _gpu(nvml: Any, handle: Any) -> _Gpu:
    return _Gpu(nvml, handle, _text(nvml.nvmlDeviceGetName(handle)))


def _by_number(handles: list[Any], variable: str) -> list[Any]:
    numbers: list[int] = []
    for text in variable.split(","):
        number = _leading_number(text.strip())
        if number in numbers:
            return []  # a repeated one makes CUDA see nothing
        if number < 0:
            break  # and one that is invalid ends the list
        numbers.append(number)
    # One past the end ends it too.
    known = next((place for place, number in enumerate(numbers) if number >= len(handles)), len(numbers))
    return [handles[number] for number in numbers[:known]]


def _leading_number(text: str) -> int:
    """Returns the number that a text begins with, as C's strtoul reads it: `1gpu` is 1; -1 where there is none."""
    unsigned = text.removeprefix("+")
    digits = unsigned[: len(unsigned) - len(unsigned.lstrip(_NUMBER))]
    return int(digits) if digits else -1


def _by_uuid(nvml: Any, handles: list[Any], variable: str, prefix: str) -> list[Any]:
    uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    places: list[int] = []
    for text in variable.split(","):
        matching = [place for place, uuid in enumerate(uuids) if text.startswith(prefix) and uuid.startswith(text)]
        if len(matching) != 1:
            break  # unknown, or not the only one that begins so
        if matching[0] in places:
            return []
        places.append(matching[0])
    return [handles[place] for place in places]


def _instances(nvml: Any, gpu: Any) -> Iterator[Any]:
    """Yields the MIG instances that a GPU is cut into; none where it is whole."""
    try:
        if nvml.nvmlDeviceGetMigMode(gpu)[0] != 1:
            return
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)
    except nvml.NVMLError:
        return  # too old for it
    for index in range(count):
        try:
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)
        except nvml.NVMLError:
            continue  # a place without an instance


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _pynvml() -> ModuleType:
    import pynvml

    module: ModuleType = pynvml
    return module
