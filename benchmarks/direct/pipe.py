"""Both ends of the pipe to a process that calls a model directly. While nobody asks, it sleeps."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks.serving import ROOT, plain_environment, worker_environment

Question = Callable[..., dict[str, Any]]


class Direct:
    """The asking end."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, what: str, **details: Any) -> dict[str, Any]:
        """Returns the answer to a question; raises `RuntimeError` where the process ended over it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"what": what, **details}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the direct calls ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def direct(module: str, *arguments: str) -> Iterator[Direct]:
    """Runs `python -m module` with the environment that our workers have, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**plain_environment(), **worker_environment()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Direct(process)
    finally:
        process.kill()
        process.wait()


def serve(questions: Mapping[str, Question]) -> None:
    """Is the answering end: reads questions from standard input until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for line in sys.stdin:
        question = json.loads(line)
        answers.write(json.dumps(questions[question.pop("what")](**question)) + "\n")
        answers.flush()
