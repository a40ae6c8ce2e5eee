"""GPUs as torch would number them, and the host's memory within its cgroups; all of it pretended."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from src.core.gpu_manager import Device, GpuManager, memory_of
from src.core.host_memory import host_memory

GB = 1000**3
MIB = 1024**2
NOT_SUPPORTED, NOT_FOUND, LOST = 3, 6, 15


class FakeNvmlError(Exception):
    """As pynvml's: the code is in `value`."""

    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


@dataclass
class FakeGpu:
    """A GPU, or an instance that one is cut into."""

    uuid: str
    free: int = 30 * GB
    name: str = "NVIDIA H200"
    instances: list["FakeGpu | None"] = field(default_factory=list)
    error: int | None = None


class FakeNvml:
    """The part of pynvml that is used."""

    NVMLError = FakeNvmlError
    NVML_ERROR_NOT_SUPPORTED = NOT_SUPPORTED

    def __init__(self, *gpus: FakeGpu, failing: type[Exception] | None = None) -> None:
        self.gpus = gpus
        self.failing = failing
        self.inits = self.shutdowns = 0

    def __call__(self) -> "FakeNvml":
        return self

    def nvmlInit(self) -> None:  # noqa: N802
        self.inits += 1
        if self.failing is not None:
            raise self.failing(12)

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shutdowns += 1
        if self.shutdowns > self.inits:
            raise FakeNvmlError(1)

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802
        return self.gpus[index]

    def nvmlDeviceGetUUID(self, gpu: FakeGpu) -> bytes:  # noqa: N802
        return gpu.uuid.encode()

    def nvmlDeviceGetName(self, gpu: FakeGpu) -> str:  # noqa: N802
        return gpu.name

    def nvmlDeviceGetMigMode(self, gpu: FakeGpu) -> list[int]:  # noqa: N802
        if gpu.name == "Tesla P100":
            raise FakeNvmlError(NOT_SUPPORTED)
        return [int(bool(gpu.instances)), 0]

    def nvmlDeviceGetMaxMigDeviceCount(self, gpu: FakeGpu) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: FakeGpu, index: int) -> FakeGpu:  # noqa: N802
        instance = gpu.instances[index] if index < len(gpu.instances) else None
        if instance is None:
            raise FakeNvmlError(NOT_FOUND)
        return instance

    def nvmlDeviceGetMemoryInfo(self, gpu: FakeGpu) -> SimpleNamespace:  # noqa: N802
        if gpu.error is not None:
            raise FakeNvmlError(gpu.error)
        return SimpleNamespace(total=40 * GB, free=gpu.free, used=40 * GB - gpu.free)


def manager(nvml: Callable[[], object], visible: str | None = None, root: Path = Path("/nowhere")) -> GpuManager:
    return GpuManager(nvml=nvml, root=root, environment={} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})


def gpus_of(found: GpuManager) -> list[int]:
    """Returns the free memory of the GPUs, in GB; the fakes are told apart by it."""
    devices = found.devices()
    assert [device.name for device in devices] == [f"cuda:{index}" for index in range(len(devices) - 1)] + ["cpu"]
    return [device.free_bytes // GB for device in devices[:-1]]


THREE = (FakeGpu("GPU-aa-1", 10 * GB), FakeGpu("GPU-ab-2", 20 * GB), FakeGpu("GPU-b-3", 30 * GB))


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, [10, 20, 30]),
        ("", []),
        ("-1", []),
        ("none", []),
        ("+", []),
        ("0", [10]),
        ("2,0", [30, 10]),
        (" 2 , 0 ", [30, 10]),
        ("1gpu,+2x", [20, 30]),
        ("1,-1,0", [20]),
        ("1,x,0", [20]),
        ("1,7,0", [20]),
        ("1,1", []),
        ("1,GPU-b", [20]),
        ("GPU-b-3", [30]),
        ("GPU-b,GPU-aa", [30, 10]),
        ("GPU-a", []),
        ("GPU-b,GPU-a,GPU-aa", [30]),
        ("GPU-b,GPU-zz,GPU-aa", [30]),
        ("GPU-b,GPU-b", []),
        ("GPU-b,GPU-b-3", []),
        ("GPU-b,0", [30]),
        ("MIG-1", []),
    ],
)
def test_gpus_are_numbered_as_torch_numbers_them(visible: str | None, seen: list[int]) -> None:
    assert gpus_of(manager(FakeNvml(*THREE), visible)) == seen


@pytest.mark.xdist_group("torch")
@pytest.mark.parametrize(
    "visible", ["2,0", "1gpu,+2x", "1,-1,0", "1,1", "1,7,0", "GPU-b", "GPU-b,GPU-b", "GPU-b,0", ""]
)
def test_the_numbering_is_torchs_own(visible: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_cuda = pytest.importorskip("torch.cuda")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    listed = torch_cuda._parse_visible_devices()
    if listed and isinstance(listed[0], str):
        listed = torch_cuda._transform_uuid_to_ordinals(listed, [gpu.uuid for gpu in THREE])
    known = next((place for place, number in enumerate(listed) if number >= 3), len(listed))
    assert gpus_of(manager(FakeNvml(*THREE), visible)) == [(number + 1) * 10 for number in listed[:known]]


CUT = FakeGpu("GPU-c", 40 * GB, instances=[None, FakeGpu("MIG-1", 5 * GB, "MIG 1g.18gb"), FakeGpu("MIG-2", 6 * GB)])


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, [5]),
        ("0", [10]),
        ("1", [5]),
        ("0,1", [5]),
        ("GPU-c", [5]),
        ("MIG-2", [6]),
        ("MIG-2,MIG-1", [6]),
        ("MIG-9", []),
        ("MIG-", []),
        ("MIG-1,MIG-1", []),
    ],
)
def test_of_a_gpu_cut_into_instances_one_is_seen(visible: str | None, seen: list[int]) -> None:
    assert gpus_of(manager(FakeNvml(THREE[0], CUT), visible)) == seen


def test_an_instance_is_called_by_its_name() -> None:
    assert manager(FakeNvml(CUT)).devices()[0].label == "MIG 1g.18gb"


def test_a_gpu_too_old_for_instances_is_whole() -> None:
    assert gpus_of(manager(FakeNvml(FakeGpu("GPU-a", 3 * GB, "Tesla P100")))) == [3]


def raising(error: Exception) -> Callable[[], object]:
    def load() -> object:
        raise error

    return load


@pytest.mark.parametrize(
    "nvml",
    [
        raising(ImportError("no pynvml")),
        raising(OSError("a library that does not load")),
        FakeNvml(failing=FakeNvmlError),
        lambda: SimpleNamespace(nvmlInit=lambda: None, nvmlShutdown=lambda: None),
    ],
)
def test_without_driver_or_library_there_are_no_gpus(
    nvml: Callable[[], object], capfd: pytest.CaptureFixture[str]
) -> None:
    found = manager(nvml)
    assert gpus_of(found) == []
    assert found.free_bytes("cuda:0") is None
    found.close()
    assert capfd.readouterr() == ("", "")


def test_this_machine_is_measured_without_a_word() -> None:
    script = (
        "import sys, warnings; warnings.simplefilter('error'); from src.core.gpu_manager import GpuManager; "
        "assert 'pynvml' not in sys.modules; found = GpuManager(); host = found.devices()[-1]; "
        "assert 0 < host.free_bytes <= host.total_bytes; found.close(); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout + done.stderr == ""


def test_nvml_is_started_once_and_shut_down_at_the_end() -> None:
    nvml = FakeNvml(*THREE)
    found = manager(nvml)
    barrier = threading.Barrier(8)

    def ask(_: int) -> int | None:
        barrier.wait()
        return found.free_bytes("cuda:1")

    assert nvml.inits == 0
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [20 * GB] * 8
    assert (nvml.inits, nvml.shutdowns) == (1, 0)
    found.close()
    found.close()
    assert (nvml.inits, nvml.shutdowns) == (1, 1)
    assert gpus_of(found) == [10, 20, 30]
    assert nvml.inits == 2


def test_free_memory_is_measured_at_each_question() -> None:
    gpu = FakeGpu("GPU-a", 10 * GB)
    found = manager(FakeNvml(gpu))
    assert found.free_bytes("cuda") == found.free_bytes("cuda:0") == 10 * GB
    gpu.free = 4 * GB
    assert found.free_bytes("cuda:0") == 4 * GB
    assert found.devices()[0] == Device("cuda:0", 40 * GB, 4 * GB, "NVIDIA H200")


@pytest.mark.parametrize("name", ["cuda:1", "cuda:", "cuda:x", "cuda:-1"])
def test_a_device_that_is_not_there_cannot_be_measured(name: str) -> None:
    assert manager(FakeNvml(THREE[0])).free_bytes(name) is None


def test_a_gpu_that_is_lost_cannot_be_measured() -> None:
    found = manager(FakeNvml(THREE[0], FakeGpu("GPU-x", error=LOST)))
    assert found.free_bytes("cuda:1") is None
    assert gpus_of(found) == [10, 0]


def test_a_gpu_without_memory_of_its_own_has_the_hosts(tmp_path: Path) -> None:
    meminfo(tmp_path, total=16, available=9)
    found = manager(FakeNvml(FakeGpu("GPU-x", error=NOT_SUPPORTED, name="NVIDIA GB10")), root=tmp_path)
    assert found.devices()[0] == Device("cuda:0", 16 * MIB, 9 * MIB, "NVIDIA GB10, in the host's memory")
    assert found.free_bytes("cuda:0") == 9 * MIB


@pytest.mark.parametrize(
    ("device", "memory"), [("cpu", "cpu"), ("mps", "cpu"), ("cuda", "cuda:0"), ("cuda:3", "cuda:3"), ("auto", "cpu")]
)
def test_a_device_uses_a_memory(device: str, memory: str) -> None:
    assert memory_of(device) == memory


# ---------------------------------------------------------------------------------------------- host


def write(file: Path, text: str | int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def meminfo(root: Path, *, total: int, available: int | None) -> None:
    """Writes /proc/meminfo; sizes in MiB."""
    lines = [f"MemTotal:       {total * 1024} kB", "MemFree:        1024 kB", "HugePages_Total:       0"]
    if available is not None:
        lines.append(f"MemAvailable:   {available * 1024} kB")
    write(root / "proc/meminfo", "\n".join(lines))


class Cgroup:
    """Writes a process's place in the tree of cgroups, and the limits along it; sizes in MiB."""

    def __init__(
        self, root: Path, version: int, path: str, *, mount_root: str = "/", point: str = "/sys/fs/cgroup"
    ) -> None:
        meminfo(root, total=64, available=50)
        self._top, self._version = root / point.lstrip("/"), version
        if version == 2:
            line, mount = f"0::{path}", f"{mount_root} {point} rw - cgroup2 cgroup2 rw,nsdelegate"
        else:
            line, mount = f"4:memory:{path}\n0::/", f"{mount_root} {point} rw - cgroup cgroup rw,memory"
        write(root / "proc/self/cgroup", f"9:name=systemd:/\n1:cpu,cpuacct:{path}\n{line}")
        write(root / "proc/self/mountinfo", f"22 1 0:20 / /proc rw - proc proc rw\ngarbage\n31 22 0:28 {mount}")

    def limit(self, folder: str, limit: int | str, *, used: int, inactive: int = 0, high: int | str = "max") -> None:
        at = self._top / folder
        size = limit * MIB if isinstance(limit, int) else limit
        if self._version == 2:
            write(at / "memory.max", size)
            write(at / "memory.high", high * MIB if isinstance(high, int) else high)
            write(at / "memory.current", used * MIB)
            write(at / "memory.stat", f"anon 1\nfile 2\ninactive_file {inactive * MIB}\nactive_file 7")
        else:
            write(at / "memory.limit_in_bytes", size)
            write(at / "memory.usage_in_bytes", used * MIB)
            write(at / "memory.stat", f"inactive_file 3\ntotal_inactive_file {inactive * MIB}\ntotal_active_file 7")


def sizes(root: Path) -> tuple[int, int]:
    """Returns total and free, in MiB."""
    total, free, _ = host_memory(root)
    return total // MIB, free // MIB


@pytest.mark.parametrize(("available", "free"), [(50, 50), (None, 1), (99, 64)])
def test_the_machine_tells_what_is_available(tmp_path: Path, available: int | None, free: int) -> None:
    meminfo(tmp_path, total=64, available=available)
    assert sizes(tmp_path) == (64, free)


def test_without_proc_sysconf_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}
    monkeypatch.setattr("os.sysconf", values.__getitem__)
    monkeypatch.setattr("os.sysconf_names", values)
    assert host_memory(tmp_path)[:2] == (4_096_000, 4_096_000)  # macOS
    values["SC_AVPHYS_PAGES"] = 10
    assert host_memory(tmp_path)[:2] == (4_096_000, 40_960)


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_limits_the_host_and_its_page_cache_counts_as_free(tmp_path: Path, version: int) -> None:
    Cgroup(tmp_path, version, "/a").limit("a", 20, used=15, inactive=6)
    assert sizes(tmp_path) == (20, 11)
    assert host_memory(tmp_path).label == "host memory (cgroup limit)"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ((30, 10), (20, 5), (20, 15)),
        ((30, 28), (20, 5), (20, 2)),  # others above it have used what it could
        ((20, 5), (30, 4), (20, 15)),
        ((20, 5), ("max", 4), (20, 15)),
        (("max", 5), (20, 4), (20, 16)),
        ((99, 5), (98, 4), (64, 50)),  # more than the machine has
        ((20, 25), (20, 25), (20, 0)),
    ],
)
def test_the_tightest_limit_along_the_path_holds(
    tmp_path: Path, version: int, outer: tuple[int | str, int], inner: tuple[int | str, int], expected: tuple[int, int]
) -> None:
    tree = Cgroup(tmp_path, version, "/a/b")
    unlimited = "max" if version == 2 else str(2**63 - 4096)
    for folder, (limit, used) in (("a", outer), ("a/b", inner)):
        tree.limit(folder, unlimited if limit == "max" else limit, used=used)
    assert sizes(tmp_path) == expected


def test_memory_high_is_a_limit_too(tmp_path: Path) -> None:
    Cgroup(tmp_path, 2, "/a").limit("a", 30, used=5, high=20)
    assert sizes(tmp_path) == (20, 15)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("path", "mount_root"),
    [("/", "/"), ("/docker/x", "/docker/x"), ("/../other", "/"), ("/docker/x", "/docker/y"), ("/docker/x", "/")],
)
def test_in_a_container_the_limit_stands_at_the_mount(tmp_path: Path, version: int, path: str, mount_root: str) -> None:
    Cgroup(tmp_path, version, path, mount_root=mount_root).limit("", 20, used=5)
    assert sizes(tmp_path) == (20, 15)


def test_the_mount_may_stand_elsewhere(tmp_path: Path) -> None:
    Cgroup(tmp_path, 2, "/x/a", mount_root="/x", point="/sys/fs/cgroup/unified").limit("a", 20, used=5)
    assert sizes(tmp_path) == (20, 15)


@pytest.mark.parametrize("garbage", ["", "x", "-5", "1e9", "\x00"])
@pytest.mark.parametrize("name", ["memory.max", "memory.current", "memory.stat"])
def test_a_garbled_file_is_passed_over(tmp_path: Path, name: str, garbage: str) -> None:
    Cgroup(tmp_path, 2, "/a").limit("a", 20, used=5)
    (tmp_path / "sys/fs/cgroup/a" / name).write_text(garbage)
    (tmp_path / "proc/self/cgroup").write_text("garbage\n::\n0::/a")
    assert sizes(tmp_path) == {"memory.max": (64, 50), "memory.current": (20, 20), "memory.stat": (20, 15)}[name]


@pytest.mark.parametrize(("budget", "expected"), [(None, (64, 50)), (100, (64, 50)), (60, (60, 50)), (30, (30, 30))])
def test_a_budget_caps_the_host(tmp_path: Path, budget: int | None, expected: tuple[int, int]) -> None:
    meminfo(tmp_path, total=64, available=50)
    found = GpuManager(
        budget_bytes=None if budget is None else budget * MIB, root=tmp_path, nvml=FakeNvml(THREE[0]), environment={}
    )
    gpu, host = found.devices()
    assert (host.total_bytes // MIB, host.free_bytes // MIB) == expected
    assert found.free_bytes("cpu") == found.free_bytes("mps") == host.free_bytes
    assert ("AIML_MEMORY_BUDGET" in host.label) == (expected[0] < 64)
    assert gpu.free_bytes == 10 * GB
