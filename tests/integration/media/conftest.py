"""Decoder pools whose processes can be made to fail."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from src.core.settings_sections import MediaSettings
from src.media.pool import DecoderPool
from tests.decoder_pools import Make
from tests.hostile import Hostile, running_hostile
from tests.unit.media import faults


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Returns a function that makes pools; they are closed afterwards."""
    made: list[DecoderPool] = []

    def one(**settings: Any) -> DecoderPool:
        made.append(DecoderPool(MediaSettings(**{"workers": 1, **settings}), modules=(faults.__name__,)))
        return made[-1]

    yield one
    await asyncio.gather(*(pool.close() for pool in made))


@pytest.fixture(scope="module")
async def pool() -> AsyncIterator[DecoderPool]:
    """A pool that several tests share."""
    shared = DecoderPool(MediaSettings(workers=1), modules=(faults.__name__,))
    yield shared
    await shared.close()


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    """A service that takes media, with small bounds, whose decoders can be made to fail."""
    with running_hostile(tmp_path_factory.mktemp("hostile")) as running:
        yield running
        assert running.service.process.poll() is None, running.service.log.read_text()
