"""Bounds, ends and options of answers that are generated together: each request keeps its own."""

import logging
from typing import Any

import pytest
import torch

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stoppable
from src.inference.engines.transformers import batch_generation
from src.inference.engines.transformers.batch_forward import of_like_cost
from src.inference.engines.transformers.batch_trial import BatchTrial
from src.inference.engines.transformers.collation import collated, media_shape, structure, token_count
from tests.architectures.media import picture
from tests.batched import Folders, answers, check, same
from tests.tiny_vision import tiny_llava

pytestmark = pytest.mark.xdist_group("torch")

GREEDY = {"do_sample": False, "min_length": 0, "max_new_tokens": 24, "logprobs": True}
PROMPTS = ("why?", "what is in the picture?", "tell me how many stars there are in this picture, and where")
ASKED = [{"images": [picture(seed)], "prompt": prompt} for seed, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("bounds"))


@pytest.fixture(scope="module")
def loaded(load: Folders) -> tuple[Any, Any]:
    return load(tiny_llava, "vlm")()


@pytest.mark.parametrize(
    "more",
    [
        {"max_new_tokens": 1},
        {"stop": ["a", "e ", "th"]},
        {"repetition_penalty": 1.7},
        {"no_repeat_ngram_size": 2},
        {"temperature": 0.0, "do_sample": True},
        {"eos_token_id": [5, 300, 301, 302, 303, 304]},
    ],
    ids=str,
)
def test_options_have_the_effect_that_they_have_alone(load: Folders, more: dict[str, Any]) -> None:
    # What counts the tokens of a prompt goes with prompts of its own length.
    together = 1 if more.keys() & {"repetition_penalty", "no_repeat_ngram_size"} else 3
    check(load(tiny_llava, "vlm"), ASKED, {**GREEDY, **more}, together=together)


def test_each_answer_has_the_room_that_its_own_prompt_leaves(loaded: Any, load: Folders) -> None:
    _, runner = loaded
    tokens = [runner.run(each, {**GREEDY, "max_new_tokens": 1})["metadata"]["prompt_tokens"] for each in ASKED]
    options = {name: value for name, value in GREEDY.items() if name != "max_new_tokens"}
    options["max_length"] = max(tokens) + 2
    check(load(tiny_llava, "vlm"), ASKED, options, together=3)
    found, _ = answers(*loaded, ASKED, options)
    made = [raw["metadata"]["tokens"] for raw in found]
    assert made[-1] <= 2 < made[0]


def test_one_whose_prompt_leaves_no_room_fails_alone(loaded: Any) -> None:
    engine, runner = loaded
    tokens = runner.run(ASKED[-1], {**GREEDY, "max_new_tokens": 1})["metadata"]["prompt_tokens"]
    options = {"do_sample": False, "min_length": 0, "max_length": tokens}
    found, _ = answers(engine, runner, ASKED, options)
    assert isinstance(found[-1], InvalidInputError)
    assert "max_new_tokens" in str(found[-1])
    same(found[:-1], [runner.run(each, dict(options)) for each in ASKED[:-1]])


def test_the_least_length_is_each_ones_own(loaded: Any, load: Folders) -> None:
    _, runner = loaded
    tokens = [runner.run(each, {**GREEDY, "max_new_tokens": 1})["metadata"]["prompt_tokens"] for each in ASKED]
    # Of the longest prompt nothing is left to ask for; the others must go on.
    ends = {"eos_token_id": list(range(3, 401, 3)), "min_length": max(tokens) - 1}
    check(load(tiny_llava, "vlm"), ASKED, {**GREEDY, **ends}, together=1)


def test_drawn_answers_differ_from_row_to_row(loaded: Any) -> None:
    engine, runner = loaded
    options = {"do_sample": True, "temperature": 2.0, "top_p": 1.0, "max_new_tokens": 12}
    found, seen = answers(engine, runner, [ASKED[0]] * 4, options)
    assert 4 in seen
    assert len({raw["response"] for raw in found}) == 4


def test_prompts_that_padding_would_take_beyond_the_context_go_by_length(load: Folders) -> None:
    context = load(tiny_llava, "vlm", context=16 + 90)
    _, runner = context()
    encoded = [token_count(runner.encoded(each["prompt"], each["images"]).inputs) for each in ASKED]
    options = {**GREEDY, "max_new_tokens": 16 + 90 - encoded[1]}
    check(context, [ASKED[0], ASKED[1], ASKED[1]], options, together=3)
    check(context, [ASKED[0], ASKED[2], ASKED[2]], options, together=2)


@pytest.mark.parametrize("name", ["_CACHED_TOKENS", "_LOGIT_BYTES"])
def test_a_batch_takes_no_more_memory_than_it_may(load: Folders, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    _, runner = load(tiny_llava, "vlm")()
    longest = token_count(runner.encoded(ASKED[-1]["prompt"], ASKED[-1]["images"]).inputs)
    of_one = {
        "_CACHED_TOKENS": longest + GREEDY["max_new_tokens"],
        "_LOGIT_BYTES": 4 * GREEDY["max_new_tokens"] * runner.model.config.text_config.vocab_size,
    }
    monkeypatch.setattr(batch_generation, name, 2 * of_one[name])
    check(load(tiny_llava, "vlm"), [*ASKED, ASKED[0]], GREEDY, together=2)


def test_a_batch_ends_within_a_step_of_its_last_callers_leaving(load: Folders) -> None:
    engine, runner = load(tiny_llava, "vlm")()
    engine.infer_batch(runner, ASKED, GREEDY)  # the model is tried at its first
    made = list[int]()
    runner.model.register_forward_hook(lambda *_: made.append(1))
    with pytest.raises(CancelledError), stoppable(lambda: len(made) > 3):
        engine.infer_batch(runner, ASKED, {**GREEDY, "max_new_tokens": 100})
    assert len(made) == 4


def outputs(answer: Any) -> Any:
    """Runs rows of numbers together: each is its own logits, moved by how much padding it gets."""

    def run(rows: Any) -> Any:
        longest = max(len(row) for row in rows)
        return [[torch.tensor(row) + answer(longest - len(row), len(rows))] for row in rows]

    return run


SIZE = {"rows of different lengths": len}
ROWS = [[1.0, 2.0], [3.0, 1.0], [5.0, 1.0, 2.0], [1.0, 5.0, 4.0, 2.0]]


@pytest.mark.parametrize(
    ("answer", "lengths"),
    [
        (lambda padding, together: 0.0, [4]),
        (lambda padding, together: 1e-3 * padding, [4]),
        (lambda padding, together: 0.1 * padding, [2, 1, 1]),
        (lambda padding, together: float("nan") if padding else 0.0, [2, 1, 1]),
        (lambda padding, together: 0.1 * (together - 1), [1, 1, 1, 1]),
    ],
)
def test_a_trial_parts_what_a_model_does_not_bear(answer: Any, lengths: list[int]) -> None:
    trial = BatchTrial("it", torch.nn.Linear(1, 1).to(torch.float32))
    trial._tolerance = 2e-3
    found = list(trial.batches(ROWS, SIZE, outputs(answer)))
    assert [len(batch) for batch in found] == lengths
    assert sorted(row for batch in found for row in batch) == sorted(ROWS)


def test_a_trial_is_made_once_and_takes_what_breaks_for_a_no(caplog: pytest.LogCaptureFixture) -> None:
    calls = list[int]()

    def run(rows: Any) -> Any:
        calls.append(len(rows))
        if len({len(row) for row in rows}) > 1:
            raise RuntimeError("expected tensors of one size")
        return [[torch.tensor(row)] for row in rows]

    trial = BatchTrial("it", torch.nn.Linear(1, 1))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert [len(batch) for batch in trial.batches(ROWS, SIZE, run)] == [2, 1, 1]
    assert calls == [2, 2, 1, 1]
    (record,) = caplog.records
    assert record.message == (
        "model 'it' does not run rows of different lengths together: RuntimeError: expected tensors of one size"
    )
    assert not trial.bears("rows of different lengths")
    assert trial.bears("rows of one length")


def test_logits_of_a_draw_are_compared_as_far_as_the_same_tokens_go() -> None:
    trial = BatchTrial("it", torch.nn.Linear(1, 1))

    def run(rows: Any) -> Any:
        alone = len(rows) == 1
        # Two tokens that are equally likely: which one is first depends on the last bit, and all that follows on it.
        first = torch.tensor([1.0, 1.0 - 1e-6]) if alone else torch.tensor([1.0 - 1e-6, 1.0])
        return [[first, torch.tensor([9.0, 0.0]) if alone else torch.tensor([0.0, 9.0])] for _ in rows]

    assert [len(batch) for batch in trial.batches(ROWS[:2], SIZE, run)] == [2]


def test_no_memory_is_no_verdict() -> None:
    def run(rows: Any) -> Any:
        raise MemoryError("out of memory")

    trial = BatchTrial("it", torch.nn.Linear(1, 1))
    with pytest.raises(MemoryError):
        list(trial.batches(ROWS, SIZE, run))
    assert trial.bears("rows of different lengths")


def test_encodings_are_padded_tokens_on_their_side_and_all_else_behind() -> None:
    def encoded(tokens: list[int], side: int, pictures: int) -> dict[str, Any]:
        ids = torch.tensor([tokens])
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "cross_attention_mask": torch.ones(1, len(tokens), pictures, dtype=torch.long),
            "pixel_values": torch.ones(1, pictures, 3, side, side),
            "image_sizes": torch.tensor([[side, side]] * pictures),
            "patches": [torch.ones(side)],
        }

    one, other = encoded([5, 6, 7], 2, 1), encoded([8], 3, 2)
    assert structure(one) == structure(other) != structure({"input_ids": one["input_ids"]})
    assert media_shape(one) < media_shape(other)
    whole = collated([one, other], pad_token=9, left=True)
    assert whole["input_ids"].tolist() == [[5, 6, 7], [9, 9, 8]]
    assert whole["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert whole["cross_attention_mask"][1].tolist() == [[0, 0], [0, 0], [1, 1]]
    assert whole["cross_attention_mask"][0].tolist() == [[1, 0]] * 3
    assert whole["pixel_values"].shape == (2, 2, 3, 3, 3)
    assert whole["pixel_values"][0, 1].sum() == whole["pixel_values"][0, 0, :, 2].sum() == 0
    assert whole["image_sizes"].tolist() == [[2, 2], [3, 3], [3, 3]]
    assert [len(patch) for patch in whole["patches"]] == [2, 3]
    assert collated([one, other])["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]


def test_prompts_without_masks_get_one_where_they_are_padded() -> None:
    one, other = ({"input_ids": torch.tensor([tokens])} for tokens in ([1, 2, 3], [4]))
    assert collated([one, other], left=True)["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert "attention_mask" not in collated([one, one], left=True)


@pytest.mark.parametrize(
    ("costs", "batches"),
    [
        ([10, 12, 11, 10], [[10, 10, 11, 12]]),
        ([10, 100, 11, 90], [[10, 11], [90, 100]]),
        ([1, 2, 3, 4, 5], [[1], [2, 3], [4, 5]]),
        ([7] * 5, [[7, 7, 7, 7], [7]]),
        ([], []),
    ],
)
def test_inputs_go_with_those_that_cost_about_as_much(costs: list[int], batches: list[list[int]]) -> None:
    assert list(of_like_cost(costs, int, 4, 0.25)) == batches


def test_a_long_prompt_does_not_make_short_ones_as_long(load: Folders) -> None:
    long = {"images": [picture(3)], "prompt": "and why? " * 60}
    check(load(tiny_llava, "vlm"), [*ASKED, long], {**GREEDY, "max_new_tokens": 8}, together=3)
