"""Bodies are read piece by piece, whatever way they are cut."""

import io
from email.message import Message

import pytest

from src.testing.fake_lakefs.bodies import PIECE, Body, ClientLeftError
from src.testing.fake_lakefs.errors import ApiError
from src.testing.fake_lakefs.multipart import Multipart, part_named

BOUNDARY = "b0"
HEAD = b'--b0\r\nContent-Disposition: form-data; name="content"; filename="x"\r\nContent-Type: text/plain\r\n\r\n'
OTHER = b'--b0\r\nContent-Disposition: form-data; name="other"\r\n\r\nnot this\r\n'
END = b"\r\n--b0--\r\n"


def body(sent: bytes, *, limit: int | None = None, **headers: str) -> Body:
    described = Message()
    for name, value in {"content-length": str(len(sent)), **headers}.items():
        described[name.replace("_", "-")] = value
    return Body(io.BytesIO(sent), described, limit)  # type: ignore[arg-type]


def content(sent: bytes) -> bytes:
    parts = Multipart(body(sent), BOUNDARY)
    assert part_named(parts, "content") is not None
    return b"".join(parts.content())


@pytest.mark.parametrize(
    "inside",
    [
        b"",
        b"\r\n",
        b"\r\n--b",
        b"\r\n-\r\n--b\r\n--",
        b"x" * (PIECE - len(HEAD)),
        b"x" * (PIECE - len(HEAD) - 3),
        bytes(range(256)) * (PIECE // 100),
    ],
    ids=["empty", "line", "nearly the end", "several near ends", "to the edge", "across the edge", "long"],
)
def test_the_content_of_a_part_arrives_as_it_is(inside: bytes) -> None:
    assert content(HEAD + inside + END) == inside


def test_other_parts_are_passed_over() -> None:
    assert content(OTHER + HEAD + b"this" + b"\r\n" + OTHER + b"--b0--\r\n") == b"this"


def test_a_form_without_the_part_has_none() -> None:
    assert part_named(Multipart(body(OTHER + b"--b0--\r\n"), BOUNDARY), "content") is None


def test_a_form_that_does_not_end_is_refused() -> None:
    with pytest.raises(ApiError, match="EOF"):
        content(HEAD + b"half")


def test_chunks_are_joined() -> None:
    sent = b"5;name=value\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\nnext"
    chunked = body(sent, transfer_encoding="chunked")
    assert chunked.whole() == b"hello!"
    assert chunked.received == 6


@pytest.mark.parametrize(
    ("sent", "headers"),
    [
        (b"hel", {"content_length": "5"}),
        (b"5\r\nhel", {"transfer_encoding": "chunked"}),
        (b"5\r\nhello\r\n", {"transfer_encoding": "chunked"}),
        (b"five\r\nhello\r\n", {"transfer_encoding": "chunked"}),
        (b"hello", {"content_length": "five"}),
    ],
)
def test_a_body_that_breaks_off_is_a_client_that_left(sent: bytes, headers: dict[str, str]) -> None:
    described = Message()
    for name, value in headers.items():
        described[name.replace("_", "-")] = value
    with pytest.raises(ClientLeftError):
        Body(io.BytesIO(sent), described).whole()  # type: ignore[arg-type]


def test_a_limit_cuts_after_exactly_so_many_bytes() -> None:
    limited = body(b"0123456789", limit=4)
    with pytest.raises(ClientLeftError):
        limited.whole()
    assert limited.received == 4
