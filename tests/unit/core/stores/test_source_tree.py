"""What an upload takes from a folder, and what it refuses."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from src.core.errors import ConflictError, InvalidInputError, NotFoundError
from src.core.stores.base import Commit
from src.core.stores.local import LocalStore

Plant = Callable[[Mapping[str, bytes]], Path]


def paths(commit: Commit) -> list[str]:
    return [entry.path for entry in commit.files]


def test_hidden_files_count_and_bookkeeping_does_not(store: LocalStore, plant: Plant) -> None:
    ignored = dict.fromkeys((".git/HEAD", "sub/.git/HEAD", ".cache/huggingface/x", ".cache/huggingface/d/y"), b"")
    kept = dict.fromkeys((".cache/own", ".env", ".gitattributes", "huggingface/x"), b"")
    assert paths(store.upload("repo", plant({**ignored, **kept}))) == sorted(kept)


def test_paths_are_kept_as_they_are(store: LocalStore, plant: Plant) -> None:
    decomposed = "cafe\u0301"
    assert paths(store.upload("repo", plant({decomposed: b"", "模型/權重": b""}))) == [
        decomposed,
        "模型/權重",
    ]


def test_missing_folder_is_not_found(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        store.upload("repo", tmp_path / "nowhere")


@pytest.mark.parametrize("files", [{}, {".git/HEAD": b""}])
def test_folder_without_files_is_refused(store: LocalStore, plant: Plant, files: dict[str, bytes]) -> None:
    source = plant(files)
    source.mkdir(exist_ok=True)
    with pytest.raises(InvalidInputError, match="no files"):
        store.upload("repo", source)


def test_a_file_is_no_folder(store: LocalStore, plant: Plant) -> None:
    with pytest.raises(InvalidInputError, match="not a folder"):
        store.upload("repo", plant({"a": b""}) / "a")


def test_refused_upload_creates_no_repository(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        store.upload("repo", tmp_path / "nowhere")
    assert store.list_repos() == []


def test_link_inside_is_taken_as_the_file(store: LocalStore, plant: Plant, tmp_path: Path) -> None:
    source = plant({"deep/a": b"content"})
    (source / "link").symlink_to("deep/a")
    store.upload("repo", source)
    store.checkout("repo", "main", tmp_path / "out")
    assert (tmp_path / "out/link").read_bytes() == b"content"
    assert not (tmp_path / "out/link").is_symlink()


@pytest.mark.parametrize("target", ["../secret", "/etc/passwd", "../source-2/secret", "nowhere", "link", "deep"])
def test_other_links_are_refused(store: LocalStore, plant: Plant, tmp_path: Path, target: str) -> None:
    source = plant({"deep/a": b"content"})
    (tmp_path / "secret").write_bytes(b"")
    (tmp_path / "source-2").mkdir()
    (tmp_path / "source-2/secret").write_bytes(b"")
    (source / "link").symlink_to(target)
    with pytest.raises(InvalidInputError, match="'link'"):
        store.upload("repo", source)


def test_pipe_is_refused_without_waiting_for_its_writer(store: LocalStore, plant: Plant) -> None:
    source = plant({"a": b""})
    os.mkfifo(source / "pipe")
    with pytest.raises(InvalidInputError, match="'pipe'"):
        store.upload("repo", source)


@pytest.mark.skipif(os.uname().sysname == "Darwin", reason="macOS itself refuses such names")
def test_name_that_is_not_unicode_is_refused(store: LocalStore, plant: Plant) -> None:
    source = plant({"a": b""})
    (source / os.fsdecode(b"\xff")).write_bytes(b"")
    with pytest.raises(InvalidInputError, match="UTF-8"):
        store.upload("repo", source)


def test_message_that_is_not_unicode_is_refused(store: LocalStore, plant: Plant) -> None:
    with pytest.raises(InvalidInputError, match="Unicode"):
        store.upload("repo", plant({"a": b""}), message="\udcff")
    assert store.list_repos() == []


def test_file_that_grows_while_it_is_read_is_refused(store: LocalStore, plant: Plant) -> None:
    source = plant({"a": b"x" * 100})

    def grow(done: int, total: int) -> None:
        with open(source / "a", "ab") as file:
            file.write(b"more")

    with pytest.raises(ConflictError, match="'a' was written to"):
        store.upload("repo", source, progress=grow)
    assert store.list_repos() == []


def test_digest_is_of_the_bytes_copied_not_of_a_later_look(store: LocalStore, plant: Plant) -> None:
    source = plant({"a": b"x" * 5_000_000})
    times = (source / "a").stat()

    def rewrite(done: int, total: int) -> None:
        (source / "a").write_bytes(b"y" * 5_000_000)
        os.utime(source / "a", ns=(times.st_atime_ns, times.st_mtime_ns))

    store.upload("repo", source, progress=rewrite)
    assert store.verify("repo", "main")


def test_progress_counts_every_byte_once(store: LocalStore, plant: Plant) -> None:
    calls: list[tuple[int, int]] = []
    source = plant({"a": b"x" * 5_000_000, "b": b"y", "c": b""})
    store.upload("repo", source, progress=lambda done, total: calls.append((done, total)))
    assert calls == sorted(calls)
    assert calls[-1] == (5_000_001, 5_000_001)
    assert len(calls) > 3


def test_progress_that_raises_cancels_the_upload(store: LocalStore, plant: Plant) -> None:
    def cancel(done: int, total: int) -> None:
        raise KeyError("cancelled")

    with pytest.raises(KeyError, match="cancelled"):
        store.upload("repo", plant({"a": b"1", "b": b"2"}), progress=cancel)
    assert (store.list_repos(), list((store.root / "tmp").iterdir())) == ([], [])
