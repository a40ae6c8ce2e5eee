"""The key of a result: equal for the same question, different for every other one."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from src.inference.results_key import ResultOf, UnkeyableError, canonical, result_key

pytestmark = pytest.mark.anyio

MADE_BY = ResultOf("sha256:1", "demo", "text-generation", "transformers", "5.0", "a.Handler")
PICTURE = np.arange(24, dtype="u1").reshape(2, 4, 3)


async def key_of(data: Any, **options: Any) -> str:
    return await result_key(MADE_BY, {"inputs": data}, options)


async def test_a_key_is_sixty_four_hex_digits() -> None:
    key = await key_of("hello")
    assert len(key) == 64
    assert set(key) <= set("0123456789abcdef")


def test_plain_values_are_canonical_json() -> None:
    value = {"b": [1, 2.5, True, None], "a": {"é": "重"}}
    assert canonical(value) == '{"a":{"\\u00e9":"\\u91cd"},"b":[1,2.5,true,null]}'


async def test_the_order_of_names_does_not_matter() -> None:
    assert await key_of({"a": 1, "b": 2}, top_k=1, seed=2) == await key_of({"b": 2, "a": 1}, seed=2, top_k=1)


@pytest.mark.parametrize(
    "values",
    [
        (1, 1.0, True, "1", "true", [1], (1,), {"1": 1}),
        (0, 0.0, False, None, "", [], (), {}, "null"),
        ("é", "e\u0301", "\\u00e9"),
        (["a", "b"], ["b", "a"], ["a,b"], ["a", ["b"]], '["a","b"]'),
        (10**30, 1e30),
        ("\ud800", "\\ud800"),
        (b"x", "x", bytearray(b"xx"), ["x"], np.frombuffer(b"x", "u1")),
    ],
)
async def test_what_differs_has_another_key(values: tuple[Any, ...]) -> None:
    keys = [await key_of(value) for value in values]
    assert len(set(keys)) == len(values)


@pytest.mark.parametrize(
    "other",
    [
        PICTURE + 1,
        PICTURE.astype("i4"),
        PICTURE.reshape(4, 2, 3),
        PICTURE.tolist(),
        PICTURE.tobytes(),
        canonical(PICTURE),
        np.zeros((0, 3), "u1"),
    ],
)
async def test_an_array_is_its_numbers_its_shape_and_its_type(other: Any) -> None:
    assert await key_of(PICTURE) == await key_of(PICTURE.copy())
    assert await key_of(PICTURE) != await key_of(other)


async def test_it_does_not_matter_how_an_array_lies_in_memory() -> None:
    assert await key_of(np.asfortranarray(PICTURE)) == await key_of(PICTURE)
    assert await key_of(PICTURE[:, ::2]) == await key_of(PICTURE[:, ::2].copy())


async def test_a_large_array_has_the_key_that_it_would_have_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    large = np.random.default_rng(1).integers(0, 255, (400, 400, 3), "u1")
    in_thread = await key_of(large)
    monkeypatch.setattr("src.inference.results_key._IN_LOOP_BYTES", 1 << 30)
    assert await key_of(large) == in_thread


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:2"},
        {"model": "other"},
        {"task": "vlm"},
        {"engine": "other"},
        {"engine_version": None},
        {"handler": "b.Handler"},
        {"device": "cuda:0"},
        {"dtype": "bfloat16"},
    ],
)
async def test_whatever_made_it_is_part_of_the_key(change: dict[str, Any]) -> None:
    assert await result_key(replace(MADE_BY, **change), {}, {}) != await result_key(MADE_BY, {}, {})


@pytest.mark.parametrize("option", ["timeout", "stream", "queue_priority", "cache"])
async def test_options_that_do_not_decide_the_result_are_left_out(option: str) -> None:
    assert await key_of("x", **{option: 1}, seed=3) == await key_of("x", seed=3)
    assert await key_of("x", seed=4) != await key_of("x", seed=3)


async def test_data_and_options_are_not_taken_for_each_other() -> None:
    assert await result_key(MADE_BY, {"seed": 1}, {}) != await result_key(MADE_BY, {}, {"seed": 1})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, "number"),
        (math.inf, "number"),
        (object(), "object"),
        ({1: "x"}, "no text"),
        (np.array([object()]), "ndarray"),
        (np.float64(1.0), "float64"),
    ],
)
async def test_what_has_no_canonical_form_has_no_key(value: Any, words: str) -> None:
    with pytest.raises(UnkeyableError, match=words):
        await key_of(value)


async def test_data_nested_without_end_has_no_key() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnkeyableError, match="nested"):
        await key_of(endless)
