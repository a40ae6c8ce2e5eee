"""One store of each kind, fresh for each test, and folders to commit."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from src.core.stores.base import VersionStore
from tests.contract.version_stores import Contender, Plant, contender, names_a_server


@pytest.fixture(params=["local", "lakefs-fake", *(["lakefs-server"] if names_a_server(os.environ) else [])])
def on(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Contender]:
    """The kind of store under test."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # only a power cut could tell the difference
    with contender(request.param, tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def store(on: Contender) -> VersionStore:
    return on.open()


@pytest.fixture
def repo(on: Contender) -> str:
    return on.repo


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Returns a function that makes a folder, `source` by default, hold exactly the given files."""

    def make(files: Mapping[str, bytes], name: str = "source") -> Path:
        source = tmp_path / name
        shutil.rmtree(source, ignore_errors=True)
        for path, data in files.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(data)
        return source

    return make
