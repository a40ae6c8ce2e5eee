"""A fake lakeFS, and stores on it as several machines would have them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.core.stores.lakefs import LakefsStore
from src.testing.fake_lakefs import FakeLakefs
from tests.unit.core.stores.lakefs.looking import OpenStore


@pytest.fixture
def server() -> Iterator[FakeLakefs]:
    with FakeLakefs() as found:
        yield found


@pytest.fixture
def open_store(server: FakeLakefs, tmp_path: Path) -> OpenStore:
    """Returns a function that makes a store; `cache` tells machines apart."""

    def make(cache: str = "cache", **options: Any) -> LakefsStore:
        keys = {"access_key_id": server.access_key_id, "secret_access_key": server.secret_access_key}
        return LakefsStore(**{"endpoint": server.url, **keys, "cache_dir": tmp_path / cache, **options})

    return make


@pytest.fixture
def store(open_store: OpenStore) -> LakefsStore:
    return open_store()
