"""The frames between service and worker: any cut of the bytes, and what breaks the rules."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.inference.workers.messages import (
    HEADER,
    MAX_BODY,
    PROTOCOL_VERSION,
    Decoder,
    Frame,
    Kind,
    ProtocolError,
    check_hello,
    encode,
    hello,
)

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abé你", max_size=4), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
frames = st.lists(st.tuples(st.sampled_from(Kind), st.integers(0, 2**64 - 1), values, st.integers(-10, 10)), max_size=6)


def decoded(*parts: bytes) -> list[Frame]:
    decoder = Decoder()
    return [frame for part in parts for frame in decoder.feed(part)]


@settings(max_examples=60, deadline=None)
@given(frames, st.data())
def test_any_cut_of_the_stream_gives_the_same_frames(
    sent: list[tuple[Kind, int, Any, int]], data: st.DataObject
) -> None:
    stream = b"".join(encode(*frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    received = decoded(*parts)
    heads = [(frame.kind, frame.id, frame.priority) for frame in received]
    assert heads == [(kind, number, priority) for kind, number, _, priority in sent]
    assert [frame.value() if frame.body else None for frame in received] == [value for _, _, value, _ in sent]


def test_byte_by_byte() -> None:
    stream = encode(Kind.INFER, 7, {"data": "你好"}) + encode(Kind.CANCEL, 7)
    (infer, cancel) = decoded(*(stream[i : i + 1] for i in range(len(stream))))
    assert (infer.kind, infer.id, infer.value()) == (Kind.INFER, 7, {"data": "你好"})
    assert cancel == Frame(Kind.CANCEL, 7, b"")


def test_a_frame_is_told_once_its_last_byte_is_there() -> None:
    stream = encode(Kind.RESULT, 1, [1, 2])
    decoder = Decoder()
    assert list(decoder.feed(stream[:-1])) == []
    assert [frame.value() for frame in decoder.feed(stream[-1:])] == [[1, 2]]


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(0, 0, 0, 1),
        HEADER.pack(0, max(Kind) + 1, 0, 1),
        HEADER.pack(MAX_BODY + 1, Kind.INFER, 0, 1),
        b"HTTP/1.1 400 B",
    ],
    ids=["kind 0", "unknown kind", "too long", "another protocol"],
)
def test_a_garbled_header_is_a_protocol_error(header: bytes) -> None:
    with pytest.raises(ProtocolError, match="garbled frame header"):
        decoded(header)


def test_frames_before_the_garbled_one_are_told() -> None:
    frames = Decoder().feed(encode(Kind.RESULT, 1, 5) + b"\xff" * HEADER.size)
    assert next(frames).value() == 5
    with pytest.raises(ProtocolError):
        next(frames)


def test_a_body_that_is_no_json_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="body of a RESULT frame"):
        Frame(Kind.RESULT, 1, b"{").value()


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 2**64, "\ud800"])
def test_a_value_that_json_cannot_hold_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        encode(Kind.INFER, 1, {"data": value})


def test_both_sides_say_hello_in_the_same_words() -> None:
    (frame,) = decoded(hello())
    check_hello(frame)


@pytest.mark.parametrize(
    "frame",
    [
        encode(Kind.HELLO, 0, {"protocol": PROTOCOL_VERSION + 1}),
        encode(Kind.HELLO, 0, {}),
        encode(Kind.HELLO, 0, []),
        encode(Kind.HELLO, 0),
        encode(Kind.INFER, 0, {"protocol": PROTOCOL_VERSION}),
    ],
    ids=["newer", "no version", "no object", "empty", "not a greeting"],
)
def test_another_greeting_is_a_protocol_error(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        check_hello(decoded(frame)[0])
