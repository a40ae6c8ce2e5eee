"""Uploads are read while they are sent, whole and with the names that they have below their folder."""

import os
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path

import pytest

from src.cli.failures import CommandError
from src.cli.multipart import LocalFile, MultipartBody, local_files


def parsed(body: MultipartBody) -> list[tuple[str | None, str | None, bytes]]:
    """Returns field, file name and content of each part, as Python's own parser reads them."""
    data = b"".join(body)
    assert len(data) == body.length
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {body.content_type}\r\n\r\n".encode() + data)
    return [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get_payload(decode=True),
        )
        for part in message.iter_parts()
    ]


def test_a_form_holds_its_texts_and_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b'{"a": 1}\r\n')
    (tmp_path / "empty.txt").touch()
    parts = parsed(MultipartBody({"name": "模型"}, local_files(tmp_path)))
    assert parts == [
        ("name", None, "模型".encode()),
        ("files", "config.json", b'{"a": 1}\r\n'),
        ("files", "empty.txt", b""),
    ]


def test_a_folder_is_all_its_files_by_their_names_in_it(tmp_path: Path) -> None:
    for name in ("b/deep/x.json", "a.txt", ".hidden", ".git/config", "b/.cache/huggingface/y", ".gitignore"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert [file.name for file in local_files(tmp_path)] == [".gitignore", ".hidden", "a.txt", "b/deep/x.json"]


def test_a_file_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"PK")
    assert local_files(path) == [LocalFile("model.zip", path, 2)]


def test_a_link_to_a_file_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"12345")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "weights.bin").symlink_to("../blob")
    assert [(file.name, file.size) for file in local_files(folder)] == [("weights.bin", 5)]


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def _broken_link(folder: Path) -> None:
    (folder / "link").symlink_to("nowhere")


def _linked_folder(folder: Path) -> None:
    (folder / "link").symlink_to("..")


def _nothing(folder: Path) -> None:
    (folder / "sub").mkdir()


def _no_utf8(folder: Path) -> None:
    (folder / os.fsdecode(b"caf\xe9.txt")).write_text("x")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (_pipe, "pipe is neither a file nor a folder of its own"),
        (_broken_link, "link cannot be read"),
        (_linked_folder, "link is neither a file nor a folder of its own"),
        (_nothing, "holds no files"),
        (_no_utf8, "is not valid UTF-8"),
    ],
)
def test_what_cannot_be_uploaded_is_named(tmp_path: Path, made: object, said: str) -> None:
    assert callable(made)
    made(tmp_path)
    with pytest.raises(CommandError, match=said):
        local_files(tmp_path)


@pytest.mark.parametrize("now", [b"", b"1", b"1234"])
def test_a_file_that_changes_meanwhile_breaks_the_upload_off(tmp_path: Path, now: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"12")
    body = MultipartBody({}, local_files(path))
    path.write_bytes(now)
    with pytest.raises(CommandError, match="was changed while it was being sent"):
        b"".join(body)


def test_a_large_file_is_read_in_pieces_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    body = MultipartBody({"name": "large"}, local_files(path))
    counted: list[int] = []
    body.sent = counted.append
    assert max(map(len, body)) <= 1 << 20
    assert sum(counted) == 50_000_000


def test_a_quote_in_a_name_does_not_end_it(tmp_path: Path) -> None:
    path = tmp_path / 'a"; x="b.json'
    path.write_text("{}")
    assert [name for _, name, _ in parsed(MultipartBody({}, local_files(path)))] == ["a%22; x=%22b.json"]
