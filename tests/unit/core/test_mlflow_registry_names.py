"""Documented names, what MLflow stores for them, and references."""

import pytest

from src.core.errors import InvalidInputError
from src.core.registry.names import (
    MAX_STORED_LENGTH,
    Reference,
    check_name,
    documented_name,
    parse_reference,
    stored_candidates,
    stored_name,
)


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("llama2-7b", "llama2-7b"),
        ("qwen3:1.7b-ollama-1", "qwen3%3A1.7b-ollama-1"),
        ("google/gemma-2b", "google%2Fgemma-2b"),
        ("50%", "50%25"),
        ("a%3Ab", "a%253Ab"),
        ('say "x"', "say %22x%22"),
        ("模型 一", "模型 一"),
    ],
)
def test_a_name_comes_back_as_it_went_in(name: str, stored: str) -> None:
    assert stored_name(check_name(name)) == stored
    assert documented_name(stored) == name


@pytest.mark.parametrize("stored", ["50%", "a%41", "a%3ab", "plain", "%"])
def test_a_stored_name_that_is_no_escape_is_shown_as_it_is(stored: str) -> None:
    assert documented_name(stored) == stored


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("plain", ("plain",)),
        ("a:b", ("a%3Ab",)),
        ("50%", ("50%25", "50%")),
        ("qwen3%3A1.7b", ("qwen3%253A1.7b", "qwen3%3A1.7b")),
    ],
)
def test_a_name_is_also_looked_up_as_others_stored_it(name: str, candidates: tuple[str, ...]) -> None:
    assert stored_candidates(name) == candidates


@pytest.mark.parametrize(
    "name",
    ["", "  ", "a@b", "@", " a", "a ", "a\nb", "a\x00b", "a\u2028b", "a\ud800", ".", "..", "..x", "x" * 257, ":" * 90],
)
def test_a_name_that_cannot_be_registered_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError):
        check_name(name)


def test_the_longest_name_fits() -> None:
    assert check_name("x" * MAX_STORED_LENGTH)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("llama2", Reference("llama2")),
        ("qwen3:1.7b", Reference("qwen3:1.7b")),
        ("llama2@production", Reference("llama2", alias="production")),
        ("llama2@12", Reference("llama2", version="12")),
        ("llama2@007", Reference("llama2", version="7")),
        ("llama2@0", Reference("llama2", version="0")),
        ("llama2@v3", Reference("llama2", alias="v3")),
        ("llama2@٣", Reference("llama2", alias="٣")),
    ],
)
def test_a_reference_is_a_name_and_perhaps_an_alias_or_a_version(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize("text", ["", "@1", "a@", "a@b@c", "a@\n", "a@" + "x" * 300])
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_reference(text)
