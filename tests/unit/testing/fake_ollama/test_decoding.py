"""Bad requests are refused in the words of Go's JSON decoder."""

from math import inf

import pytest

from src.testing.fake_ollama.completions import GENERATE
from src.testing.fake_ollama.decoding import seconds
from src.testing.fake_ollama.errors import ApiError

NOT_BOOL = "json: cannot unmarshal string into Go struct field GenerateRequest.stream of type bool"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "missing request body"),
        ('{"model": "tiny"', "unexpected EOF"),
        ('{"model": "ti', "unexpected EOF"),
        ('{"stream": tr', "unexpected EOF"),
        ('{"model" "tiny"}', "invalid character '\"' after object key"),
        ('{"model": "tiny" "a": 1}', "invalid character '\"' after object key:value pair"),
        ('{"context": [1 2]}', "invalid character '2' after array element"),
        ('{"model": "tiny",}', "invalid character '}' looking for beginning of object key string"),
        ('{"model": tiny}', "invalid character 'i' in literal true (expecting 'r')"),
        ('{"model": x}', "invalid character 'x' looking for beginning of value"),
        ("[]", "json: cannot unmarshal array into Go value of type api.GenerateRequest"),
        ('{"stream": "yes"}', NOT_BOOL),
    ],
)
def test_a_bad_body_is_refused(body: str, message: str) -> None:
    with pytest.raises(ApiError) as refusal:
        GENERATE.read(body.encode())
    assert (refusal.value.status, refusal.value.message) == (400, message)


def test_nulls_and_what_follows_the_object_are_ignored() -> None:
    assert GENERATE.read(b'{"model": "tiny", "stream": null} and more') == {"model": "tiny"}


@pytest.mark.parametrize(
    ("text", "length"),
    [(1.5, 1.5), (-1, inf), ("1h30m", 5400.0), ("50ms", 0.05), ("-1s", inf)],
)
def test_a_duration_is_read(text: object, length: float) -> None:
    assert seconds(text) == pytest.approx(length)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("300", 'time: missing unit in duration "300"'),
        ("soon", 'time: invalid duration "soon"'),
        (True, "Unsupported type: 'bool'"),
    ],
)
def test_a_bad_duration_is_refused(text: object, message: str) -> None:
    with pytest.raises(ApiError, match=message.replace("(", ".")):
        seconds(text)
