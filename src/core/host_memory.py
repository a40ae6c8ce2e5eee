"""The host's memory as this process may use it: the machine's, or the tightest cgroup limit above it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class HostMemory(NamedTuple):
    """Bytes, and what bounds them, in words."""

    total: int
    free: int
    label: str


@dataclass(frozen=True, slots=True)
class _Mount:
    root: PurePosixPath
    point: str
    kind: str
    options: tuple[str, ...]


def host_memory(root: Path = Path("/")) -> HostMemory:
    """Returns the memory of the host; `root` is where /proc and /sys are looked for.

    Page cache counts as free as far as the kernel would give it up: MemAvailable of the machine, and in
    a cgroup what is used without its inactive files. Where there is no /proc, what sysconf tells.
    """
    found = _machine(root)
    for folder, version in _cgroups(root):
        limit = _limit(folder, version)
        if limit is None or limit >= found.total:
            continue
        used = _number(folder / ("memory.current" if version == 2 else "memory.usage_in_bytes")) or 0
        free = max(limit - max(used - _inactive_files(folder, version), 0), 0)
        found = HostMemory(limit, min(found.free, free), "host memory (cgroup limit)")
    return found


def _machine(root: Path) -> HostMemory:
    rows = (line.split() for line in _text(root / "proc/meminfo").splitlines())
    fields = {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) >= 2 and row[1].isdecimal()}
    if "MemTotal" in fields:
        total = fields["MemTotal"]
        return HostMemory(total, min(fields.get("MemAvailable", fields.get("MemFree", total)), total), "host memory")
    page = os.sysconf("SC_PAGE_SIZE")
    total = os.sysconf("SC_PHYS_PAGES") * page
    # macOS does not tell how much is free: all of it, then, but for what the budget says.
    free = os.sysconf("SC_AVPHYS_PAGES") * page if "SC_AVPHYS_PAGES" in os.sysconf_names else total
    return HostMemory(total, free, "host memory")


def _cgroups(root: Path) -> Iterator[tuple[Path, int]]:
    """Yields the folders of this process's memory cgroup and those above it, with the cgroup version."""
    mounts = list(_mounts(root))
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        for mount in mounts:
            if mount.kind == "cgroup2" if version == 2 else "memory" in mount.options and mount.kind == "cgroup":
                yield from ((folder, version) for folder in _above(root, mount, PurePosixPath(path)))


def _above(root: Path, mount: _Mount, path: PurePosixPath) -> Iterator[Path]:
    top = root / mount.point.lstrip("/")
    yield top
    # Inside a container the path may be told from outside, and then nothing of it is mounted here.
    if path.is_relative_to(mount.root) and ".." not in path.parts:
        folder = top
        for part in path.relative_to(mount.root).parts:
            folder = folder / part
            yield folder


def _mounts(root: Path) -> Iterator[_Mount]:
    """Source: proc_pid_mountinfo(5)."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, separator, right = line.partition(" - ")
        fields, rest = left.split(), right.split()
        if separator and len(fields) >= 5 and len(rest) >= 3 and rest[0] in ("cgroup", "cgroup2"):
            yield _Mount(PurePosixPath(fields[3]), fields[4].replace("\\040", " "), rest[0], tuple(rest[2].split(",")))


def _limit(folder: Path, version: int) -> int | None:
    names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
    limits = [limit for limit in (_number(folder / name) for name in names) if limit is not None]
    return min(limits, default=None)


def _inactive_files(folder: Path, version: int) -> int:
    wanted = "inactive_file" if version == 2 else "total_inactive_file"
    rows = (line.split() for line in _text(folder / "memory.stat").splitlines())
    return next((int(row[1]) for row in rows if len(row) == 2 and row[0] == wanted and row[1].isdecimal()), 0)


def _number(file: Path) -> int | None:
    """Returns the number in a file; None where there is none, as in `max`."""
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
