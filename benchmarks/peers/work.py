"""The work that every peer serves: nothing at all, or the image classifier; the same code in each of them."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.direct.classifier import Classifier

MAX_BATCH = 16
"""The largest batch that a peer may make: as many as there are callers."""
TASK, MODELS, CHANNELS_LAST = "BENCH_TASK", "BENCH_MODELS", "BENCH_CHANNELS_LAST"
"""Environment variables that say what a peer is to serve."""

Work = Callable[[Sequence[str]], list[Any]]


def work() -> Work:
    """Returns what turns a batch of inputs into answers: it repeats them, or classifies pictures."""
    if os.environ[TASK] == "noop":
        return list
    return Classifier(f"{os.environ[MODELS]}/resnet", channels_last=os.environ[CHANNELS_LAST] == "1")
