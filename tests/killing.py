"""Programs killed with SIGKILL at random moments, and started again."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FINISH_SECONDS = 600.0


@dataclass
class Killed:
    """What was done to a program: the seed, and after how many seconds of its life each kill came."""

    seed: int
    moments: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{len(self.moments)} kills (SIGKILL) with seed {self.seed}, {sum(self.moments):.0f} s of running in all"


def drawn_seed() -> int:
    """Returns a new seed, or the one in the environment (KILL_SEED), so that a run can be had again."""
    return int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(2**32))


def kill_at_random(
    command: Sequence[str],
    *,
    times: int,
    span: float,
    log: Path,
    seed: int | None = None,
    after_kill: Callable[[int], None] = lambda kill: None,
    **options: Any,
) -> Killed:
    """Starts a program that does not end by itself, kills it and all of its children, and starts it again.

    Each moment is drawn uniformly from the first `span` seconds after the start: as long as the program takes,
    undisturbed, for all of its phases. `log` takes its output, `options` go to `subprocess.Popen`. `after_kill` is
    called with the count of kills while the program does not run. Raises `AssertionError` where it ends by itself.
    """
    killed = Killed(drawn_seed() if seed is None else seed)
    draw = random.Random(killed.seed)
    for kill in range(1, times + 1):
        moment = draw.uniform(0, span)
        with log.open("ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **options)
        try:
            code = process.wait(moment)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _kill_group(process)
        assert code is None, f"{command[0]} ended by itself with {code}:\n{_tail(log)}"
        killed.moments.append(moment)
        after_kill(kill)
    return killed


def run_undisturbed(command: Sequence[str], *, log: Path, **options: Any) -> float:
    """Runs a program to its end, and returns how long it took (s); raises `AssertionError` where it fails."""
    begin = time.monotonic()
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **options)
    try:
        code = process.wait(FINISH_SECONDS)
    finally:
        _kill_group(process)
    assert code == 0, f"{command[0]} ended with {code}:\n{_tail(log)}"
    return time.monotonic() - begin


def _kill_group(process: "subprocess.Popen[bytes]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-4000:]
