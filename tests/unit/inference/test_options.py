"""Options: documented names and defaults, types, ranges, and errors that name what is wrong."""

from typing import Any

import pytest

from src.core.errors import ValidationError
from src.inference.options import CommonOptions, OllamaOptions, TransformersOptions, default_of, validate_options

DOCUMENTED_DEFAULTS: list[tuple[type[CommonOptions], str, Any]] = [
    (CommonOptions, "max_length", 512),
    (CommonOptions, "max_new_tokens", 256),
    (CommonOptions, "min_length", 10),
    (CommonOptions, "do_sample", True),
    (CommonOptions, "temperature", 0.7),
    (CommonOptions, "top_p", 0.9),
    (CommonOptions, "top_k", 50),
    (CommonOptions, "num_beams", 1),
    (CommonOptions, "early_stopping", False),
    (CommonOptions, "repetition_penalty", 1.0),
    (CommonOptions, "length_penalty", 1.0),
    (CommonOptions, "no_repeat_ngram_size", 0),
    (CommonOptions, "num_return_sequences", 1),
    (CommonOptions, "pad_token_id", None),
    (CommonOptions, "eos_token_id", None),
    (CommonOptions, "timeout", 60),
    (OllamaOptions, "num_predict", 128),
    (OllamaOptions, "repeat_penalty", 1.1),
    (OllamaOptions, "mirostat_tau", 5.0),
    (OllamaOptions, "mirostat_eta", 0.1),
    (OllamaOptions, "num_ctx", 2048),
    (OllamaOptions, "num_thread", None),
    (TransformersOptions, "device", "auto"),
    (TransformersOptions, "device_map", "auto"),
    (TransformersOptions, "torch_dtype", "auto"),
    (TransformersOptions, "batch_size", 1),
    (TransformersOptions, "return_timestamps", False),
]

COMMON: dict[str, tuple[list[Any], list[Any]]] = {
    # option: values that are taken (the ends of the range among them), values that are not
    "max_length": ([1, 512], [0, -1, 5.5, "5", True]),
    "max_new_tokens": ([1, 4096], [0, 2.5, "5"]),
    "min_length": ([0, 10], [-1, "0"]),
    "do_sample": ([True, False], ["true", 1]),
    "temperature": ([0.0, 0, 0.7, 2.0], [-0.1, 2.1, "0.7", float("nan"), True]),
    "top_p": ([0.1, 1.0, 1], [0.0, 1.1, "1"]),
    "top_k": ([0, 50], [-1, 1.5]),
    "num_beams": ([1, 64], [0, 65]),
    "early_stopping": ([True, False], ["never", 0]),
    "repetition_penalty": ([0.5, 1.2, 10.0], [0.0, 10.5, "1"]),
    "length_penalty": ([-10.0, 0.0, 10.0], [-11, 11, "1", True, float("nan")]),
    "no_repeat_ngram_size": ([0, 3], [-1, 0.5]),
    "num_return_sequences": ([1, 64], [0, 65]),
    "pad_token_id": ([0, 7], [-1, "0"]),
    "eos_token_id": ([0, 7, [1, 2]], [-1, [], [-1], "2", ["2"], list(range(17))]),
    "stop": (["\n", "結束", ["a", "bc"]], [1, [1], "", [""]]),
    "seed": ([0, 2**63 - 1], [-1, 2**63, 0.5]),
    "timeout": ([0.1, 60, 86400], [0, -1, 86401, "60"]),
    "stream": ([False, True], ["no"]),
    "queue_priority": ([-10, 0, 10], [-11, 11, 1.5, "1"]),
    "cache": ([False, True], ["yes", 1]),
}
OLLAMA: dict[str, tuple[list[Any], list[Any]]] = {
    "num_predict": ([-2, -1, 128], [-3, 1.5]),
    "repeat_penalty": ([0.5, 1.1], [0.0, "1.1"]),
    "repeat_last_n": ([-1, 0, 64], [-2]),
    "mirostat": ([0, 1, 2], [3, -1, "1"]),
    "mirostat_tau": ([0.1, 5.0], [0.0]),
    "mirostat_eta": ([0.1], [0.0]),
    "num_ctx": ([1, 8192], [0, "2048"]),
    "num_thread": ([1, 8], [0]),
    "num_gpu": ([0, 99], [-1]),
    "num_keep": ([-1, 0, 4], [-2]),
    "num_batch": ([1, 512], [0]),
    "min_p": ([0.0, 1.0], [-0.1, 1.1]),
    "typical_p": ([0.5, 1.0], [0.0, 1.1]),
    "presence_penalty": ([-1.5, 1.5], ["1"]),
    "frequency_penalty": ([-1.5, 1.5], ["1"]),
    "keep_alive": (["5m", -1, 0, 2.5], [True, []]),
    "format": (["json", {"type": "object"}], ["xml", []]),
    "system": (["Be brief.", "簡短"], [5]),
    "think": ([True, False], ["yes"]),
}
TRANSFORMERS: dict[str, tuple[list[Any], list[Any]]] = {
    "device": (["auto", "cpu", "cuda", "cuda:0", "cuda:12", "mps"], ["gpu", "cuda:", "cuda:x", "cpu:0", 0]),
    "device_map": (["auto"], [0]),
    "torch_dtype": (["auto", "float32", "float16", "bfloat16", "int8", "nf4"], ["float64", 16]),
    "dtype": (["auto", "float32", "float16", "bfloat16", "int8", "nf4"], ["double", 16]),
    "trust_remote_code": ([True, False], ["yes", 1]),
    "batch_size": ([1, 8], [0]),
    "language": (["zh"], [1]),
    "task": (["transcribe", "translate"], ["sing"]),
    "return_timestamps": ([True, False, "word"], ["char", 2]),
    "logprobs": ([True, False], [5]),
    "num_frames": ([1, 64], [0, 2.5]),
    "fps": ([0.5, 25.0], [0, -1, 1001.0]),
    "segmentation": (["auto", "none", "lines", "words"], ["letters"]),
    "pages": ([[0], [2, 5]], [[], [-1], 3]),
}
TABLES: list[tuple[type[CommonOptions], dict[str, tuple[list[Any], list[Any]]]]] = [
    (OllamaOptions, COMMON),
    (TransformersOptions, COMMON),
    (OllamaOptions, OLLAMA),
    (TransformersOptions, TRANSFORMERS),
]
TAKEN = [(schema, name, value) for schema, table in TABLES for name, (good, _) in table.items() for value in good]
REFUSED = [(schema, name, value) for schema, table in TABLES for name, (_, bad) in table.items() for value in bad]


@pytest.mark.parametrize(("schema", "name", "default"), DOCUMENTED_DEFAULTS)
def test_documented_default(schema: type[CommonOptions], name: str, default: Any) -> None:
    assert default_of(schema, name) == default


@pytest.mark.parametrize(("schema", "own"), [(OllamaOptions, OLLAMA), (TransformersOptions, TRANSFORMERS)])
def test_the_tables_here_name_every_option(schema: type[CommonOptions], own: dict[str, Any]) -> None:
    assert set(schema.model_fields) == {*COMMON, *own}


@pytest.mark.parametrize(("schema", "name", "value"), TAKEN)
def test_value_is_taken_as_it_is(schema: type[CommonOptions], name: str, value: Any) -> None:
    assert validate_options(schema, {name: value}) == {name: value}


@pytest.mark.parametrize(("schema", "name", "value"), REFUSED)
def test_value_is_refused_by_the_name_of_its_option(schema: type[CommonOptions], name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=f"option '{name}'") as caught:
        validate_options(schema, {name: value})
    assert {problem["option"] for problem in caught.value.details["options"]} == {name}


def test_every_wrong_option_is_named_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        validate_options(TransformersOptions, {"temperature": 3, "top_k": -1, "top_p": 0.5})
    assert {problem["option"] for problem in caught.value.details["options"]} == {"temperature", "top_k"}


def test_a_wrong_type_is_told_with_the_value_given() -> None:
    with pytest.raises(ValidationError, match=r"option 'max_new_tokens': Input should be a valid integer.*'many'"):
        validate_options(TransformersOptions, {"max_new_tokens": "many"})


@pytest.mark.parametrize("schema", [OllamaOptions, TransformersOptions])
def test_null_is_unset(schema: type[CommonOptions]) -> None:
    assert validate_options(schema, dict.fromkeys(schema.model_fields)) == {}


def test_only_what_was_set_comes_back() -> None:
    assert validate_options(TransformersOptions, {"top_k": 50, "top_p": None}) == {"top_k": 50}


@pytest.mark.parametrize(
    ("schema", "misspelt", "meant"),
    [
        (TransformersOptions, "temprature", "temperature"),
        (OllamaOptions, "temprature", "temperature"),
        (TransformersOptions, "max_token", "max_new_tokens"),
        (TransformersOptions, "Temperature", "temperature"),
        (TransformersOptions, "torch_dytpe", "torch_dtype"),
        (OllamaOptions, "num_contex", "num_ctx"),
        (OllamaOptions, "repeat_penality", "repeat_penalty"),
    ],
)
def test_a_misspelt_option_is_answered_with_the_nearest(schema: type[CommonOptions], misspelt: str, meant: str) -> None:
    with pytest.raises(ValidationError, match=f"unknown option '{misspelt}', did you mean '{meant}'"):
        validate_options(schema, {misspelt: 1})


def test_an_option_like_no_other_is_unknown_without_a_guess() -> None:
    with pytest.raises(ValidationError, match=r"unknown option 'xyzzy'$") as caught:
        validate_options(TransformersOptions, {"xyzzy": 1})
    assert caught.value.details["unknown_options"] == {"xyzzy": None}
    assert "temperature" in caught.value.details["known_options"]


@pytest.mark.parametrize(("schema", "name"), [(TransformersOptions, "num_ctx"), (OllamaOptions, "torch_dtype")])
def test_an_option_of_another_engine_is_unknown(schema: type[CommonOptions], name: str) -> None:
    with pytest.raises(ValidationError, match=f"unknown option '{name}'"):
        validate_options(schema, {name: 1})


@pytest.mark.parametrize("option", ["torch_dtype", "dtype"])
@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("fp16", "float16"), ("bf16", "bfloat16"), ("fp32", "float32"),
        ("8bit", "int8"), ("int4", "nf4"), ("4bit", "nf4"),
    ],
)  # fmt: skip
def test_short_names_of_number_formats(option: str, alias: str, name: str) -> None:
    assert validate_options(TransformersOptions, {option: alias}) == {option: name}
