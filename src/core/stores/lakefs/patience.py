"""A second and a third try, where the server stumbles or the connection breaks."""

import time
from collections.abc import Callable
from typing import TypeVar

from src.core.errors import StoreUnavailableError

ATTEMPTS = 3
PAUSE = 0.3  # seconds before the second attempt; twice that before the third

R = TypeVar("R")


def patiently(work: Callable[[], R]) -> R:
    """Does what may be done again without harm, until it succeeds or has failed three times."""
    for attempt in range(1, ATTEMPTS):
        try:
            return work()
        except StoreUnavailableError:
            time.sleep(PAUSE * attempt)
    return work()
