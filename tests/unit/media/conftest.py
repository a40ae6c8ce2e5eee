"""Fixtures of the media tests."""

from collections.abc import Iterator

import pytest
from PIL import Image

from tests.unit.media.sites import Site, running_site


@pytest.fixture(autouse=True)
def bounds_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves Pillow's own bound out, as a decoder process does."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)


@pytest.fixture
def site() -> Iterator[Site]:
    """A server that sends a PNG from every path, and what tests add."""
    with running_site() as running:
        yield running
