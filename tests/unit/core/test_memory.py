"""Sizes as people write them, and memory as the kernel counts it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.core.memory import format_bytes, give_back_freed, parse_bytes, private_memory, process_memory

MIB = 1024**2
GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (12, 12),
        ("12", 12),
        ("12 b", 12),
        ("8GB", 8 * 1000**3),
        ("8 gb", 8 * 1000**3),
        (" 8GiB ", 8 * GIB),
        ("512MiB", 512 * 1024**2),
        ("1.5g", GIB + GIB // 2),
        (".5Gi", GIB // 2),
        ("2k", 2048),
        ("1T", 1024 * GIB),
        ("1PB", 1000**5),
        ("0.1GB", 100_000_000),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_a_size_is_read(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    ["", " ", "GB", "8XB", "8 G B", "-8GB", "8iB", "8i", "1e9", "nan", "8,5GB", "1.GB", "٣GB", -1, True, 1.5, None],
)
def test_what_is_no_size_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ValueError, match="512MiB"):
        parse_bytes(text)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (999_994, "999.99 kB"),
        (999_995, "1.00 MB"),
        (1_500_000_000, "1.50 GB"),
        (-2_000_000, "-2.00 MB"),
        (10**19, "10000.00 PB"),
    ],
)
def test_a_size_is_written(size: int, text: str) -> None:
    assert format_bytes(size) == text
    assert size < 0 or parse_bytes(text.replace("bytes", "")) == pytest.approx(size, rel=0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells")
def test_mapped_files_and_pages_shared_with_a_parent_are_not_private(tmp_path: Path) -> None:
    with open(tmp_path / "weights", "wb") as file:
        file.write(bytes(40 * MIB))
        os.fsync(file.fileno())  # until then its pages are dirty
    script = """
import mmap, os, sys
inherited = bytearray(b"x" * (60 << 20))
if child := os.fork():
    sys.exit(os.waitpid(child, 0)[1])
file = open(sys.argv[1], "rb")
weights = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
sum(weights[::4096])
own = bytearray(b"x" * (30 << 20))
print(os.getpid(), flush=True)
sys.stdin.read()
os._exit(0)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "weights")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        whole, private = process_memory(pid), private_memory(pid)
        parent.communicate()
    assert whole is not None
    assert private is not None
    assert 30 * MIB <= private < 50 * MIB
    assert whole > private + 60 * MIB


def test_a_process_that_is_gone_has_no_memory() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert process_memory(gone.pid) is None
    assert private_memory(gone.pid) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps and gives back like this")
def test_what_was_freed_can_be_given_back() -> None:
    script = """if True:
        import os
        from src.core.memory import give_back_freed, private_memory
        blocks = [bytearray(100_000) for _ in range(2000)]
        kept = blocks[::50]
        del blocks
        before = private_memory(os.getpid())
        give_back_freed()
        print(before - private_memory(os.getpid()))
    """
    # As workers have it: freed memory stays with the process.
    settings = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "33554432"}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **settings}, check=True, capture_output=True, text=True
    )
    assert int(done.stdout) > 100_000_000


def test_without_glibc_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    give_back_freed()
