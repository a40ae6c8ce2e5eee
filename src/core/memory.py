"""Memory of processes, as the kernel counts it."""

from pathlib import Path


def process_memory(pid: int) -> int | None:
    """Returns the proportional set size of a process, in bytes; None where the system does not tell.

    Pages shared with other processes count in equal parts. Source: /proc/<pid>/smaps_rollup (Linux).
    """
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return None


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
