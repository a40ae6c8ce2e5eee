"""Memory of processes, as the kernel counts it, and sizes as people write them."""

import ctypes
import re
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

_SIZE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(?:([kmgtp])(i?b?)|b)?", re.ASCII | re.IGNORECASE)
_UNITS = "kmgtp"


def process_memory(pid: int) -> int | None:
    """Returns the proportional set size of a process, in bytes; None where the system does not tell.

    Pages shared with other processes count in equal parts. Source: /proc/<pid>/smaps_rollup (Linux).
    """
    return _rollup(pid, "Pss")


def private_memory(pid: int) -> int | None:
    """Returns what only this process holds and the kernel cannot take back, in bytes; None where it does not tell.

    It is how much less memory is free because of the process. Left out are pages shared with a preloader,
    and pages of files: libraries, and the weights of a model that runs on the CPU in its checkpoint's own
    dtype, which stay mapped. The kernel counts those as available memory.
    """
    return _rollup(pid, "Private_Dirty")


def give_back_freed() -> None:
    """Gives the system back what this process has freed but its allocator kept; does nothing without glibc."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


class KernelWatch:
    """Notices that the kernel killed a process for memory since the last look."""

    def __init__(self) -> None:
        self._seen = kernel_kills()

    def look(self) -> bool:
        """Returns whether it did, and starts anew."""
        before, self._seen = self._seen, kernel_kills()
        return self._seen > before


def kernel_kills() -> int:
    """Returns how many processes the kernel has killed for memory since it started; 0 where it does not tell.

    Source: `oom_kill` in /proc/vmstat (Linux).
    """
    try:
        text = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def parse_bytes(value: str | int) -> int:
    """Returns a size in bytes; raises `ValueError` that says how to write one.

    `8GB` is 8 x 1000^3 and `8GiB` 8 x 1024^3. A letter alone (`8g`, `512M`) is the binary unit, as for
    Docker's --memory, systemd's MemoryMax and Java's -Xmx. A number alone is bytes.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"{value!r} is no size in bytes: write a number and a unit, as in 8GB, 512MiB or 1.5g")
    number, letter, rest = match.groups()
    base = 1000 if rest and rest.lower() == "b" else 1024
    return int(Fraction(number) * base ** (1 + _UNITS.index(letter.lower()) if letter else 0))


def format_bytes(size: int) -> str:
    """Returns a size for people to read, in the units that `parse_bytes` takes: `1.50 GB`, `12 bytes`."""
    if abs(size) < 1000:
        return f"{size} bytes"
    power = next((power for power in range(1, len(_UNITS)) if abs(size) < 999.995 * 1000**power), len(_UNITS))
    return f"{size / 1000**power:.2f} {('', 'kB', 'MB', 'GB', 'TB', 'PB')[power]}"


def _rollup(pid: int, field: str) -> int | None:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return None
