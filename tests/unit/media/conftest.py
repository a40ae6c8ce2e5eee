"""Fixtures of the media tests."""

import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def bounds_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves Pillow's own bound out, as a decoder process does."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
