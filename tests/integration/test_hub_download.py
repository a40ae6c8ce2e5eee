"""Downloads from a hub, over processes that are killed, meet each other, or run out of disk."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src.core.sources.huggingface import HuggingFaceSource
from src.core.sources.staging import StagingArea
from src.testing.fake_hub import FakeHub, FakeRepo

ROOT = Path(__file__).parents[2]
MB = 1_000_000
FILES: dict[str, bytes | Path] = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    **{f"model-{number:05}-of-00003.safetensors": os.urandom(6 * MB) for number in (1, 2, 3)},
    "tokenizer.json": os.urandom(1 * MB),
}
SIZE = sum(len(content) for content in FILES.values() if isinstance(content, bytes))
CODE = """
import resource, sys
from pathlib import Path
from src.core.sources.huggingface import HuggingFaceSource
from src.core.sources.staging import StagingArea
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    print(HuggingFaceSource(StagingArea(Path(sys.argv[1]))).download("org/tiny").record.revision)
except Exception as exc:
    sys.exit(f"{type(exc).__name__}: {exc}")
"""


@pytest.fixture
def repo() -> FakeRepo:
    return FakeRepo("org/tiny", FILES)


@pytest.fixture
def hub(repo: FakeRepo) -> Iterator[FakeHub]:
    with FakeHub([repo]) as hub:
        yield hub


@pytest.fixture
def staging(tmp_path: Path) -> StagingArea:
    return StagingArea(tmp_path / "models")


def downloading(hub: FakeHub, staging: StagingArea, *arguments: str) -> "subprocess.Popen[str]":
    """Starts a download in a process of its own."""
    unwanted = ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    return subprocess.Popen(
        [sys.executable, "-c", CODE, str(staging.root), *arguments],
        cwd=ROOT,
        env={**environment, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def assert_staged(staging: StagingArea) -> None:
    """Asserts that the model is there byte for byte, and nothing else."""
    path = staging.get("org/tiny").path
    assert {name: (path / name).read_bytes() for name in FILES} == FILES
    assert sorted(os.listdir(path)) == sorted([*FILES, ".aiml-source.json"])
    assert os.listdir(staging.root) == ["org_tiny"]


def test_a_killed_download_goes_on_where_it_was(
    hub: FakeHub, staging: StagingArea, figure: Callable[[str], None]
) -> None:
    draw = random.Random(7)
    hub.faults.slow(4 * MB)
    for part in (0.1, 0.3, 0.5, 0.7, 0.9):
        target = SIZE * (part + draw.uniform(-0.05, 0.05))
        with downloading(hub, staging) as process:
            while hub.bytes_sent() < target and process.poll() is None:
                time.sleep(0.005)
            process.kill()
        assert process.returncode == -9
        assert staging.list() == []
    hub.faults.slow(None)
    with downloading(hub, staging) as process:
        assert process.wait(120) == 0
    assert_staged(staging)
    figure(f"killed five times: {hub.bytes_sent() / SIZE:.2f} times the size was sent")
    assert hub.bytes_sent() < 1.5 * SIZE


def test_two_processes_that_want_the_same_fetch_it_once(hub: FakeHub, repo: FakeRepo, staging: StagingArea) -> None:
    hub.faults.slow(4 * MB)
    with downloading(hub, staging) as first, downloading(hub, staging) as second:
        for process in (first, second):
            out, errors = process.communicate(timeout=120)
            assert (process.returncode, out.strip(), errors) == (0, repo.branches["main"], "")
    assert_staged(staging)
    assert hub.bytes_sent() == SIZE


def test_the_second_process_takes_over_when_the_first_dies(hub: FakeHub, staging: StagingArea) -> None:
    hub.faults.slow(2 * MB)
    with downloading(hub, staging) as first:
        while hub.bytes_sent() < SIZE / 4 and first.poll() is None:
            time.sleep(0.005)
        with downloading(hub, staging) as second:
            while sum("/tree/" in request.path for request in hub.requests) < 2 and second.poll() is None:
                time.sleep(0.005)
            first.kill()
            hub.faults.slow(None)
            assert second.wait(120) == 0
    assert_staged(staging)
    assert hub.bytes_sent() < 1.5 * SIZE


def test_where_the_disk_is_full_it_says_so_and_goes_on_once_there_is_room(hub: FakeHub, staging: StagingArea) -> None:
    with downloading(hub, staging, str(2 * MB)) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "StoreUnavailableError" in errors
    assert "has no room" in errors
    assert staging.list() == []
    with downloading(hub, staging) as process:
        assert process.wait(120) == 0
    assert_staged(staging)
    assert hub.bytes_sent() < 1.5 * SIZE


def test_all_faults_at_once(hub: FakeHub, staging: StagingArea, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    weights = [name for name in FILES if name.startswith("model")]
    for name in weights:
        hub.faults.cut(after=2 * MB, times=2, file=name)
    hub.faults.unavailable(times=3)
    hub.faults.flip(weights[0])
    hub.faults.flip("config.json")
    HuggingFaceSource(staging, endpoint=hub.url, pauses=(0.05,) * 5).download("org/tiny")
    assert_staged(staging)
    assert hub.bytes_sent() <= SIZE + 6 * MB + len(FILES["config.json"])


def test_it_writes_nothing_at_home_and_tells_nobody_who_asks(
    hub: FakeHub, staging: StagingArea, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; from pathlib import Path; from src.core.sources.huggingface import HuggingFaceSource;"
        "from src.core.sources.staging import StagingArea;"
        "assert not {'huggingface_hub', 'httpx2'} & set(sys.modules);"
        "HuggingFaceSource(StagingArea(Path(sys.argv[1]))).download('org/tiny')"
    )
    environment = {"HOME": str(home), "HF_ENDPOINT": hub.url, "PATH": os.environ["PATH"], "AI_AGENT": "some"}
    subprocess.run([sys.executable, "-c", code, str(staging.root)], cwd=ROOT, env=environment, check=True, timeout=120)
    assert os.listdir(home) == []
    assert_staged(staging)
    assert not [request.path for request in hub.requests if "agent" in request.path]
    assert not [request for request in hub.requests if "agent/" in request.headers["user-agent"]]


@pytest.mark.slow
def test_a_large_file_takes_no_more_memory_than_a_small_one(
    tmp_path: Path, staging: StagingArea, figure: Callable[[str], None]
) -> None:
    size = 1_000 * MB
    with open(tmp_path / "weights", "wb") as file:
        for _ in range(100):
            file.write(os.urandom(size // 100))
    large = FakeRepo("org/tiny", {"model.safetensors": tmp_path / "weights"})
    peak = CODE + "print(*[line for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    with FakeHub([large]) as hub:
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", peak, str(staging.root)],
            cwd=ROOT,
            env={**os.environ, "HF_ENDPOINT": hub.url},
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        seconds = time.monotonic() - began
    resident = int(done.stdout.split()[-2]) / 1024
    figure(f"1 GB from a hub in this process, its hashing included: {size / seconds / MB:.0f} MB/s, {resident:.0f} MiB")
    assert resident < 200
