"""Which architectures run step by step, and that their forward passes over slots give the logits of each text alone."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("torch")

TEXTS = ("Seven ships", "sail", "north while the clock on the tower strikes eight and nobody listens", "a b c")
GREEDY = {"do_sample": False, "min_length": 0, "max_new_tokens": 6, "logprobs": True}
TOGETHER = ("LlamaForCausalLM", "GPT2LMHeadModel", "Qwen3ForCausalLM", "GemmaForCausalLM", "OPTForCausalLM")
SAMPLE = (
    "Qwen2ForCausalLM",
    "Qwen3MoeForCausalLM",
    "MixtralForCausalLM",
    "Phi3ForCausalLM",
    "GPTNeoXForCausalLM",
    "GPTBigCodeForCausalLM",
    "GPTJForCausalLM",
    "FalconForCausalLM",
    "DeepseekV3ForCausalLM",
    "GraniteForCausalLM",
    "Olmo2ForCausalLM",
    "RobertaForCausalLM",
    "StableLmForCausalLM",
    "XGLMForCausalLM",
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Makes the tiny model of a row of the matrix of architectures, once."""
    runners: dict[str, Any] = {}

    def make(architecture: str, **config: Any) -> Any:
        from tests.architectures.rows_text import CASES

        if architecture not in runners:
            folder = tmp_path_factory.mktemp(architecture)
            next(case for case in CASES if case.architecture == architecture).build(folder)
            runners[architecture] = load(architecture, folder)
        return runners[architecture]

    return make


def load(name: str, folder: Path) -> Any:
    from src.inference.engines.transformers.text_generation import CausalRunner

    return CausalRunner.load(name, folder, device="cpu", dtype="float32", trust_remote_code=False)


def support(runner: Any) -> Any:
    from src.inference.engines.transformers.step_support import StepSupport

    return StepSupport(runner._generator)


def check_answers(runner: Any) -> None:
    """Runs texts that come one after another, while those before run, and compares them with each alone."""
    scheduler = runner.scheduler(lambda raw, options: raw)
    answers: dict[int, Any] = {}
    for key, text in enumerate(TEXTS):
        while not scheduler.takes(text, GREEDY):
            answers |= dict(scheduler.step())
        scheduler.add(key, text, GREEDY, None)
        answers |= dict(scheduler.step())
    while len(scheduler):
        answers |= dict(scheduler.step())
    for key, text in enumerate(TEXTS):
        alone = runner.run(text, GREEDY)
        assert answers[key]["response"] == alone["response"]
        assert answers[key]["metadata"]["logprobs"] == pytest.approx(alone["metadata"]["logprobs"], abs=1e-4)


@pytest.mark.parametrize("architecture", TOGETHER)
def test_requests_together_have_the_answers_of_each_alone(loaded: Any, architecture: str) -> None:
    runner = loaded(architecture)
    assert support(runner).together
    assert support(runner).mixes
    check_answers(runner)


@pytest.mark.parametrize("architecture", SAMPLE)
def test_whatever_passes_the_trial_has_the_answers_of_each_alone(loaded: Any, architecture: str) -> None:
    runner = loaded(architecture)
    assert support(runner).together
    check_answers(runner)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_no_architecture_that_is_taken_answers_otherwise(tmp_path: Path) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    from tests.architectures.rows_text import CASES

    taken = []
    for case in CASES:
        causal = case.architecture in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
        if causal and case.architecture not in SAMPLE + TOGETHER:
            case.build(tmp_path / case.architecture)
            runner = load(case.architecture, tmp_path / case.architecture)
            if support(runner).layers:
                check_answers(runner)
                taken.append(case.architecture)
    assert len(taken) > 50


@pytest.mark.parametrize("architecture", TOGETHER)
def test_forward_passes_over_slots_give_the_logits_of_each_text_alone(loaded: Any, architecture: str) -> None:
    import torch

    from src.inference.engines.transformers.slot_model import SlotModel

    runner = loaded(architecture)
    texts = [[100 + 3 * place + length for place in range(length)] for length in (7, 4, 15)]
    slots = SlotModel(runner.model, support(runner).layers)
    with torch.inference_mode():
        first = slots.read(0, [text[:-2] for text in texts[:2]])
        second = slots.mix([text[-2] for text in texts[:2]], [len(text) - 2 for text in texts[:2]], [texts[2][:5]])
        third = slots.read(2, [texts[2][5:9]], 5)
        ends = [text[-1] for text in texts[:2]]
        fourth = slots.mix(ends, [len(text) - 1 for text in texts[:2]], [texts[2][9:-1]], 9)
        fifth = slots.go_on([texts[0][0], texts[1][0], texts[2][-1]], [len(texts[0]), len(texts[1]), len(texts[2]) - 1])
        alone = [runner.model(torch.tensor([[*text, text[0]]])).logits[0] for text in texts[:3]]
    pairs = [
        *((first[place], alone[place][-4]) for place in range(2)),
        *((second[place], alone[place][-3]) for place in range(2)),
        (second[2], alone[2][4]),
        (third[0], alone[2][8]),
        *((fourth[place], alone[place][-2]) for place in range(2)),
        (fourth[2], alone[2][-3]),
        *((fifth[place], alone[place][-1]) for place in range(2)),
        (fifth[2], alone[2][-2]),
    ]
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("MistralForCausalLM", "DynamicSlidingWindowLayer"),
        ("MambaForCausalLM", "position_ids"),
        ("Qwen3NextForCausalLM", "state"),
        ("BloomForCausalLM", "position_ids"),
        ("GPTNeoForCausalLM", "window_size"),
    ],
)
def test_what_keeps_more_or_less_than_every_token_is_left_to_generate(
    loaded: Any, architecture: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    runner = loaded(architecture)
    scheduler = runner.scheduler(lambda raw, options: raw)
    with caplog.at_level(logging.INFO):
        assert not scheduler.takes(TEXTS[0], GREEDY)
        assert not scheduler.takes(TEXTS[0], GREEDY)
    assert len(caplog.records) == 1
    assert reason in caplog.text
    assert len(runner.run(TEXTS[0], GREEDY)["metadata"]["logprobs"]) == 6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"penalty_alpha": 0.6, "top_k": 4, "do_sample": False}, "another way"),
        ({"guidance_scale": 2.0}, "another way"),
        ({"prompt_lookup_num_tokens": 3}, "another way"),
        ({"cache_implementation": "static"}, "StaticCache"),
    ],
)
def test_a_generation_config_that_wants_another_loop_gets_it(
    loaded: Any, changes: Mapping[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = loaded("LlamaForCausalLM")
    for name, value in changes.items():
        monkeypatch.setattr(runner.model.generation_config, name, value)
    assert any(reason in problem for problem in support(runner)._problems())


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_stretch_with_the_longest_text_are_left_to_generate(
    loaded: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = loaded("LlamaForCausalLM")
    monkeypatch.setattr(runner.model.config, "rope_parameters", {"full_attention": {"rope_type": kind}})
    assert "rotary" in next(support(runner)._problems())


def test_a_model_whose_answers_its_neighbours_change_runs_alone(
    loaded: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = loaded("LlamaForCausalLM")
    norm = type(runner.model.model.norm)
    forward = norm.forward
    monkeypatch.setattr(
        norm, "forward", lambda self, states: forward(self, states - 0.1 * states.mean(0, keepdim=True))
    )
    alone = [runner.run(text, GREEDY)["response"] for text in TEXTS]
    scheduler = runner.scheduler(lambda raw, options: raw)
    assert scheduler.takes(TEXTS[0], GREEDY)
    scheduler.add(0, TEXTS[0], GREEDY, None)
    scheduler.add(1, TEXTS[1], GREEDY, None)  # in the same moment, before anything is known
    answers = dict(scheduler.step())
    assert not scheduler.takes(TEXTS[2], GREEDY)
    while len(scheduler):
        answers |= dict(scheduler.step())
        assert len(scheduler._rows) <= 1
    assert [answers[key]["response"] for key in (0, 1)] == alone[:2]
    assert scheduler.takes(TEXTS[2], GREEDY)
    assert len([record for record in caplog.records if "together" in record.message]) == 1
