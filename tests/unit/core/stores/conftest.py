"""A fresh store, and folders to commit."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from src.core.stores import blobs, hashing
from src.core.stores.local import LocalStore


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a power cut could tell the difference, and the suite takes a third of the time."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def plant(tmp_path: Path) -> Callable[[Mapping[str, bytes]], Path]:
    """Returns a function that makes the folder `source` hold exactly the given files."""

    def make(files: Mapping[str, bytes]) -> Path:
        source = tmp_path / "source"
        shutil.rmtree(source, ignore_errors=True)
        for path, data in files.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(data)
        return source

    return make


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of files as the store reads them."""
    seen: list[str] = []
    original = hashing.sha256_of

    def counting(*args: object) -> tuple[str, int]:
        result = original(*args)  # type: ignore[arg-type]
        seen.append(result[0])
        return result

    monkeypatch.setattr(hashing, "sha256_of", counting)
    monkeypatch.setattr(blobs, "sha256_of", counting)
    return seen
