"""The text generation runner on tiny models: bounds, sampling, stops, templates, counts, refusals."""

from pathlib import Path
from typing import Any

import pytest

from src.core.errors import CancelledError, InvalidInputError, ModelLoadError
from src.inference.engines.base import stoppable
from tests.tiny_models import scripted_llama, tiny_llama

pytestmark = pytest.mark.xdist_group("torch")

TEXT = "abcdefghijé€ klmnop"
TOKENS = len(TEXT.encode())
PROMPT = "?"
GREEDY = {"temperature": 0.0}
SHORT = {"max_new_tokens": 24, "min_length": 0}


@pytest.fixture(scope="module")
def runners() -> Any:
    """The module; what imports torch is imported by the tests that need it."""
    from src.inference.engines.transformers import text_generation

    return text_generation


@pytest.fixture(scope="module")
def generation() -> Any:
    from src.inference.engines.transformers import generation

    return generation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("models") / "tiny", context=64)


@pytest.fixture(scope="module")
def tiny(runners: Any, folder: Path) -> Any:
    """A random Llama with a context of 64 tokens, one a byte."""
    return load(runners, folder)


@pytest.fixture(scope="module")
def scripted(runners: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model that says `TEXT` and ends; when it may choose, it starts with `k` as often."""
    folder = tmp_path_factory.mktemp("models") / "scripted"
    return load(runners, scripted_llama(folder, TEXT, other_start="k"))


def load(runners: Any, path: Path, device: str = "cpu", dtype: str = "auto") -> Any:
    return runners.CausalRunner.load("tiny", path, device=device, dtype=dtype, trust_remote_code=False)


# ---------------------------------------------------------------------- how long an answer may be


@pytest.mark.parametrize(
    ("options", "prompt_tokens", "bound"),
    [
        ({}, 10, 256),
        ({}, 256, 256),
        ({}, 300, 212),
        ({"max_length": 100}, 10, 90),
        ({"max_length": 1000}, 10, 990),
        ({"max_new_tokens": 300}, 10, 300),
        ({"max_new_tokens": 300}, 1000, 300),
        ({"max_new_tokens": 50, "max_length": 100}, 10, 50),
        ({"max_new_tokens": 500, "max_length": 100}, 10, 90),
    ],
)
def test_answer_bound(generation: Any, options: dict[str, Any], prompt_tokens: int, bound: int) -> None:
    assert generation.answer_bound(options, prompt_tokens) == bound


@pytest.mark.parametrize("options", [{}, {"max_length": 512}, {"max_length": 20, "max_new_tokens": 5}])
def test_a_prompt_that_leaves_no_room_is_told_of_max_new_tokens(generation: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="set max_new_tokens") as caught:
        generation.answer_bound(options, 512)
    assert caught.value.details["prompt_tokens"] == 512


@pytest.mark.parametrize(
    ("options", "text"), [({"max_new_tokens": 5}, "abcde"), ({"max_length": 6}, "abcde"), ({"max_length": 2}, "a")]
)
def test_an_answer_ends_at_its_bound(scripted: Any, options: dict[str, Any], text: str) -> None:
    raw = scripted.run(PROMPT, {**GREEDY, **options})
    assert raw["response"] == text
    assert (raw["metadata"]["tokens"], raw["metadata"]["finish_reason"]) == (len(text), "length")


def test_the_context_bounds_an_answer(tiny: Any) -> None:
    raw = tiny.run("x" * 60, {"max_new_tokens": 50, "min_length": 1000})
    assert (raw["metadata"]["tokens"], raw["metadata"]["finish_reason"]) == (4, "length")


@pytest.mark.parametrize("length", [64, 100])
def test_a_prompt_as_long_as_the_context_is_refused(tiny: Any, length: int) -> None:
    with pytest.raises(InvalidInputError, match=f"prompt has {length} tokens and the model's context is 64"):
        tiny.run("x" * length, {"max_new_tokens": 5})


@pytest.mark.parametrize(("least", "text", "tokens"), [(0, TEXT, TOKENS + 1), (40, TEXT * 2, 2 * TOKENS + 1)])
def test_min_length_counts_prompt_and_answer(scripted: Any, least: int, text: str, tokens: int) -> None:
    raw = scripted.run(PROMPT, {**GREEDY, "min_length": least})
    assert (raw["response"], raw["metadata"]["tokens"]) == (text, tokens)


def test_min_length_gives_way_to_the_bound(scripted: Any) -> None:
    assert scripted.run(PROMPT, {**GREEDY, "min_length": 40, "max_new_tokens": 5})["response"] == "abcde"


# ---------------------------------------------------------------------- how tokens are chosen


@pytest.mark.parametrize("options", [{"temperature": 0}, {"do_sample": False}, {"do_sample": True, "temperature": 0.0}])
def test_without_chance_the_likeliest_token_wins(scripted: Any, options: dict[str, Any]) -> None:
    assert {scripted.run(PROMPT, {**options, "max_new_tokens": 1})["response"] for _ in range(12)} == {"a"}


def test_by_default_tokens_are_drawn(scripted: Any) -> None:
    assert {scripted.run(PROMPT, {"max_new_tokens": 1})["response"] for _ in range(60)} == {"a", "k"}


@pytest.mark.parametrize("options", [{"top_k": 1}, {"top_p": 0.1}, {"temperature": 0.001}])
def test_options_of_sampling_reach_the_model(scripted: Any, options: dict[str, Any]) -> None:
    assert {scripted.run(PROMPT, {**options, "max_new_tokens": 1})["response"] for _ in range(12)} == {"a"}


def test_the_same_seed_gives_the_same_answer(tiny: Any) -> None:
    first, again, other = (tiny.run("Hi", {**SHORT, "seed": seed})["response"] for seed in (5, 5, 6))
    assert first == again != other


def test_a_seed_is_for_its_own_request_only(tiny: Any) -> None:
    after = []
    for _ in range(2):
        tiny.run("Hi", {**SHORT, "seed": 5})
        after.append(tiny.run("Hi", SHORT)["response"])
    assert after[0] != after[1]


def test_repetition_penalty_reaches_the_model(scripted: Any) -> None:
    assert scripted.run("a?", {**GREEDY, "max_new_tokens": 1})["response"] == "a"
    assert scripted.run("a?", {**GREEDY, "max_new_tokens": 1, "repetition_penalty": 1.2})["response"] == "k"


def test_no_repeat_ngram_size_reaches_the_model(scripted: Any) -> None:
    raw = scripted.run(PROMPT, {**GREEDY, "min_length": 40, "no_repeat_ngram_size": 2})
    assert raw["response"].startswith(TEXT)
    assert not raw["response"].startswith(TEXT + TEXT[:2])


# ---------------------------------------------------------------------- several sequences


def test_several_sequences_are_all_told(scripted: Any) -> None:
    raw = scripted.run(PROMPT, {"num_return_sequences": 16, "max_new_tokens": 1, "seed": 1})
    assert len(raw["response"]) == 16
    assert set(raw["response"]) == {"a", "k"}
    assert raw["metadata"]["tokens"] == 16


@pytest.mark.parametrize(("options", "ending"), [({"min_length": 0}, 1), ({"stop": "p"}, 0)])
def test_the_tokens_of_each_sequence_are_counted_up_to_its_own_end(
    scripted: Any, options: dict[str, Any], ending: int
) -> None:
    raw = scripted.run(PROMPT, {**options, "num_return_sequences": 16, "seed": 1})
    bodies = [text if ending else text + "p" for text in raw["response"]]
    assert set(bodies) == {TEXT, "klmnop"}
    assert raw["metadata"]["tokens"] == sum(len(body.encode()) + ending for body in bodies)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 3, "do_sample": False}])
def test_beams_give_one_answer(scripted: Any, options: dict[str, Any]) -> None:
    assert scripted.run(PROMPT, {**options, "max_new_tokens": 3})["response"] in ("abc", "klm")


def test_beams_give_as_many_answers_as_asked(scripted: Any) -> None:
    raw = scripted.run(PROMPT, {**GREEDY, "num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 3})
    assert raw["response"] == ["abc", "klm"]


# ---------------------------------------------------------------------- where an answer ends


def test_an_answer_ends_by_itself(scripted: Any) -> None:
    raw = scripted.run(PROMPT, GREEDY)
    assert raw["response"] == TEXT
    assert raw["metadata"] == {"model": "tiny", "tokens": TOKENS + 1, "finish_reason": "stop", "prompt_tokens": 1}


@pytest.mark.parametrize(
    ("stop", "text", "tokens"),
    [
        ("d", "abc", 4),
        ("cde", "ab", 5),
        ("é", "abcdefghij", 12),
        ("€ k", "abcdefghijé", 17),
        (["nothing", "f", "d"], "abc", 4),
        (["bcd", "c"], "ab", 3),
        ("a", "", 1),
        (TEXT[1:-1], "a", TOKENS - 1),
    ],
    ids=[
        "one token",
        "several tokens",
        "not ASCII",
        "across letters",
        "the first of many",
        "nested",
        "at once",
        "long",
    ],
)
def test_an_answer_ends_before_a_stop_text(scripted: Any, stop: Any, text: str, tokens: int) -> None:
    raw = scripted.run(PROMPT, {**GREEDY, "stop": stop})
    assert raw["response"] == text
    assert (raw["metadata"]["tokens"], raw["metadata"]["finish_reason"]) == (tokens, "stop")


@pytest.mark.parametrize("stop", ["A", "é€k", ["nothing"], []])
def test_a_stop_text_that_is_never_said_changes_nothing(scripted: Any, stop: Any) -> None:
    assert scripted.run(PROMPT, {**GREEDY, "stop": stop}) == scripted.run(PROMPT, GREEDY)


def test_a_stop_text_in_the_prompt_stops_nothing(scripted: Any) -> None:
    assert scripted.run("STOP", {**GREEDY, "stop": "STOP"})["response"] == TEXT


@pytest.mark.parametrize("as_list", [False, True])
def test_a_token_named_by_eos_token_id_ends_the_answer(scripted: Any, as_list: bool) -> None:
    (token,) = scripted.processor("d")["input_ids"]
    raw = scripted.run(PROMPT, {**GREEDY, "min_length": 0, "eos_token_id": [token, 0] if as_list else token})
    assert (raw["response"], raw["metadata"]["tokens"], raw["metadata"]["finish_reason"]) == ("abcd", 4, "stop")


def test_a_stop_ends_the_generation_within_a_step(tiny: Any) -> None:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked >= 5

    with stoppable(stop), pytest.raises(CancelledError):
        tiny.run("Hi", {"max_new_tokens": 60, "min_length": 60})
    assert asked <= 7


# ---------------------------------------------------------------------- prompts and messages


def test_messages_without_a_template_become_a_plain_prompt(tiny: Any) -> None:
    raw = tiny.run([{"role": "user", "content": "hi"}], SHORT)
    assert raw["metadata"]["prompt_tokens"] == len("user: hi\nassistant:")


@pytest.mark.parametrize("inputs", ["hi", [{"role": "user", "content": "hi"}]])
def test_a_prompt_is_a_message_to_a_model_that_chats(tiny: Any, monkeypatch: pytest.MonkeyPatch, inputs: Any) -> None:
    from tests.tiny_models import CHAT_TEMPLATE

    monkeypatch.setattr(tiny.processor, "chat_template", CHAT_TEMPLATE)
    raw = tiny.run(inputs, SHORT)
    assert raw["metadata"]["prompt_tokens"] == len("<user>hi") + 1 + len("<assistant>")


def test_messages_that_the_template_refuses_are_the_callers_fault(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny.processor, "chat_template", "{{ raise_exception('user and assistant must alternate') }}")
    with pytest.raises(InvalidInputError, match="template refuses these messages: user and assistant must alternate"):
        tiny.run("hi", SHORT)


def test_a_prompt_is_taken_as_its_bytes(tiny: Any) -> None:
    assert tiny.run("你好 é", SHORT)["metadata"]["prompt_tokens"] == len("你好 é".encode())


# ---------------------------------------------------------------------- options that cannot be honoured


@pytest.mark.parametrize(
    "options",
    [
        {"num_return_sequences": 2, "do_sample": False},
        {"num_return_sequences": 2, "temperature": 0},
        {"num_return_sequences": 3, "num_beams": 2},
        {"num_return_sequences": 8, "stop": "m", "pad_token_id": 10**6},
        {"eos_token_id": 10**6},
    ],
)
def test_options_that_cannot_be_used_are_the_callers_fault(scripted: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"num_return_sequences|pad_token_id|eos_token_id"):
        scripted.run(PROMPT, options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"language": "zh"}, "language"),
        ({"task": "translate"}, "task"),
        ({"return_timestamps": True}, "return_timestamps"),
        ({"batch_size": 4}, "batch_size"),
        ({"early_stopping": True}, "early_stopping"),
        ({"length_penalty": 2.0}, "length_penalty"),
    ],
)
def test_an_option_without_effect_is_warned_of(scripted: Any, options: dict[str, Any], name: str) -> None:
    (warning,) = scripted.run(PROMPT, {**GREEDY, "max_new_tokens": 1, **options})["warnings"]
    assert f"option '{name}' has no effect" in warning


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 1, "early_stopping": False, "length_penalty": 1.0, "return_timestamps": False},
        {"num_beams": 2, "early_stopping": True, "length_penalty": 2.0},
    ],
)
def test_nothing_is_warned_of_without_reason(scripted: Any, options: dict[str, Any]) -> None:
    assert scripted.run(PROMPT, {**GREEDY, "max_new_tokens": 1, **options})["warnings"] == []


# ---------------------------------------------------------------------- several prompts in one batch


PROMPTS = ("Hello there", "?", "a prompt of more tokens than the others", "again")


@pytest.mark.parametrize(
    "options",
    [
        {**GREEDY, "max_new_tokens": 20, "min_length": 0},
        {**GREEDY, "max_new_tokens": 12, "stop": ["a", "Q"], "logprobs": True},
        {**GREEDY, "max_new_tokens": 12, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
        {**GREEDY, "max_length": 45},
    ],
)
def test_a_batch_has_the_answers_of_each_prompt_alone(tiny: Any, options: dict[str, Any]) -> None:
    prompts = [*PROMPTS, "x" * 64]
    assert tiny.batch_key(PROMPTS[0], options) == tiny.batch_key(PROMPTS[1], options) is not None
    *answers, failed = tiny.run_batch(prompts, options)
    assert isinstance(failed, InvalidInputError)
    for answer, prompt in zip(answers, PROMPTS, strict=True):
        alone = tiny.run(prompt, options)
        found, wanted = (each["metadata"].pop("logprobs", []) for each in (answer, alone))
        assert answer == alone
        assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_return_sequences": 2}, {"seed": 1}])
def test_what_would_be_drawn_otherwise_beside_others_runs_alone(tiny: Any, options: dict[str, Any]) -> None:
    assert tiny.batch_key("Hi", options) is None


# ---------------------------------------------------------------------- loading


@pytest.mark.parametrize(("dtype", "loaded"), [("auto", "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")])
def test_the_number_format_asked_for_is_loaded(runners: Any, folder: Path, dtype: str, loaded: str) -> None:
    runner = load(runners, folder, dtype=dtype)
    assert (runner.device, runner.dtype) == ("cpu", loaded)


def test_parameter_bytes_are_those_of_the_file(tiny: Any, folder: Path) -> None:
    size = (folder / "model.safetensors").stat().st_size
    assert size * 0.9 < tiny.parameter_bytes() <= size * 1.1


@pytest.mark.parametrize(
    ("device", "dtype", "words"),
    [
        ("cuda:97", "auto", "device 'cuda:97' does not exist here .there are: .*cpu"),
        ("cpu", "float64", "'float64' is no number format"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(
    runners: Any, folder: Path, device: str, dtype: str, words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        load(runners, folder, device, dtype)


@pytest.mark.parametrize("broken", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_broken_file_is_a_load_error(runners: Any, tmp_path: Path, broken: str) -> None:
    tiny_llama(tmp_path)
    (tmp_path / broken).write_bytes((tmp_path / broken).read_bytes()[:40])
    with pytest.raises(ModelLoadError, match="Model 'tiny' could not be loaded"):
        load(runners, tmp_path)


def test_an_empty_folder_is_a_load_error(runners: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="Model 'tiny' could not be loaded"):
        load(runners, tmp_path)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_pickled_code_in_weights_is_not_run(runners: Any, tmp_path: Path) -> None:
    import torch

    tiny_llama(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Bomb(tmp_path / "run")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError):
        load(runners, tmp_path)
    assert not (tmp_path / "run").exists()
