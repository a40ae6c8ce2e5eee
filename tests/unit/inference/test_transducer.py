"""Speech recognition by transducers on tiny models, against the library called directly."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stoppable
from tests import tiny_speech
from tests.tiny_speech import RATE, noise, recording

pytestmark = pytest.mark.xdist_group("torch")

ARCHITECTURES = ("parakeet_rnnt", "parakeet_tdt")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    root, loaded = tmp_path_factory.mktemp("transducers"), dict[str, tuple[Any, Path]]()

    def get(name: str) -> tuple[Any, Path]:
        from src.inference.engines.transformers.engine import TransformersEngine

        if name not in loaded:
            path = getattr(tiny_speech, name)(root / name)
            loaded[name] = TransformersEngine({"device": "cpu"}).load_model(name, model_path=path, task="asr"), path
        return loaded[name]

    return get


def directly(path: Path, samples: Any) -> tuple[str, int]:
    """The library's text, and how many tokens that are no blanks it emitted."""
    from transformers import AutoModelForRNNT, AutoModelForTDT, AutoProcessor

    processor = AutoProcessor.from_pretrained(path)
    auto = AutoModelForTDT if path.name.endswith("tdt") else AutoModelForRNNT
    model = auto.from_pretrained(path).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = model.generate(**processor(samples, sampling_rate=RATE, return_tensors="pt"))
    emitted = int((output.sequences[0, 1:] != model.config.blank_token_id).sum())
    return processor.decode(output.sequences[0], skip_special_tokens=True).strip(), emitted


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_answer_is_the_librarys(name: str, load: Any) -> None:
    runner, path = load(name)
    raw = runner.run(recording(noise(0.6)), {"logprobs": True})
    text, emitted = directly(path, noise(0.6))
    assert raw["response"] == text
    assert raw["metadata"]["tokens"] == len(raw["metadata"]["logprobs"]) == emitted
    assert max(raw["metadata"]["logprobs"]) <= 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_another_sound_changes_the_likelihoods(name: str, load: Any) -> None:
    one, other = (
        load(name)[0].run(recording(noise(0.6, seed)), {"logprobs": True})["metadata"]["logprobs"] for seed in (0, 3)
    )
    assert not np.allclose(one[:2], other[:2], atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_words_make_up_the_text_and_lie_in_the_sound(name: str, load: Any) -> None:
    raw = load(name)[0].run(recording(noise(0.6)), {"return_timestamps": "word"})
    assert " ".join(chunk["text"] for chunk in raw["chunks"]) == " ".join(raw["response"].split())
    assert all(0 <= start <= end <= 0.6 for start, end in (chunk["timestamp"] for chunk in raw["chunks"]))


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("samples", [np.zeros(RATE // 2, np.float32), np.zeros(1, np.float32)])
def test_silence_and_an_instant_are_heard_too(name: str, load: Any, samples: Any) -> None:
    raw = load(name)[0].run(recording(samples), {"logprobs": True})
    assert np.isfinite(raw["metadata"]["logprobs"]).all()


def test_one_that_comes_to_the_end_of_the_sound_is_not_cut(load: Any) -> None:
    raw = load("parakeet_rnnt")[0].run(recording(noise(0.6)), {})
    assert (raw["metadata"]["finish_reason"], raw["warnings"]) == ("stop", [])


def test_one_that_never_goes_on_is_told_to_be_cut(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runner, _ = load("parakeet_tdt")
    monkeypatch.setattr(runner.model, "_update_model_kwargs_for_generation", _standing_still(runner.model))
    raw = runner.run(recording(noise(0.4)), {})
    assert raw["metadata"]["finish_reason"] == "length"


def _standing_still(model: Any) -> Callable[..., Any]:
    """Returns a step after which the model still listens to the first frame."""
    import torch

    step = type(model)._update_model_kwargs_for_generation

    def stand(*args: Any, **kwargs: Any) -> Any:
        told = step(model, *args, **kwargs)
        told["encoder_frame_idxs"] = torch.zeros_like(told["encoder_frame_idxs"])
        model._encoder_finished = torch.zeros_like(model._encoder_finished)
        return told

    return stand


def test_options_about_generating_are_warned_of(load: Any) -> None:
    raw = load("parakeet_rnnt")[0].run(recording(noise(0.3)), {"num_beams": 4, "language": "en", "task": "translate"})
    for name in ("num_beams", "language", "task"):
        assert any(f"option '{name}'" in warning for warning in raw["warnings"])


def test_a_language_is_found_under_its_name_its_code_or_its_region(load: Any) -> None:
    runner, _ = load("parakeet_rnnt")
    runner._prompts = {"en-US": 0, "en": 0, "zh-CN": 4, "th-TH": 32}
    try:
        assert [runner._language(name) for name in ("English", "zh-CN", "chinese", "th")] == [
            "en", "zh-CN", "zh-CN", "th-TH",
        ]  # fmt: skip
        with pytest.raises(InvalidInputError, match="'klingon' is none of this model's languages: it has en"):
            runner._language("klingon")
    finally:
        runner._prompts = {}


def test_a_caller_who_is_gone_ends_it_within_a_step(load: Any) -> None:
    asked = []

    def gone() -> bool:
        asked.append(1)
        return len(asked) > 5

    with pytest.raises(CancelledError), stoppable(gone):
        load("parakeet_rnnt")[0].run(recording(noise(3)), {})
    assert len(asked) < 10
