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
