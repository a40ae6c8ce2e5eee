"""Speech recognition by an encoder and a decoder, on tiny models, against the library called directly."""

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

ARCHITECTURES = ("moonshine", "speech_to_text", "speecht5", "speech_encoder_decoder")
TOKENS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root, made = tmp_path_factory.mktemp("speech"), dict[str, Path]()

    def make(name: str) -> Path:
        if name not in made:
            made[name] = getattr(tiny_speech, name)(root / name)
        return made[name]

    return make


@pytest.fixture(scope="module")
def load(folder: Callable[[str], Path]) -> Callable[[str], Any]:
    loaded = dict[str, Any]()

    def get(name: str) -> Any:
        from src.inference.engines.transformers.engine import TransformersEngine

        if name not in loaded:
            engine = TransformersEngine({"device": "cpu"})
            loaded[name] = engine.load_model(name, model_path=folder(name), task="asr")
        return loaded[name]

    return get


def directly(name: str, folder: Path, samples: Any) -> tuple[str, list[float]]:
    """What the library says, and how sure it is of each token."""
    import torch
    from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoTokenizer

    extractor, tokenizer = AutoFeatureExtractor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    inputs = extractor(samples, sampling_rate=RATE, return_tensors="pt")
    output = model.generate(
        **inputs, max_new_tokens=TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    ids = output.sequences[0, 1:]
    values = [float(torch.log_softmax(step[0], -1)[token]) for step, token in zip(output.logits, ids, strict=True)]
    return tokenizer.decode(ids, skip_special_tokens=True).strip(), values


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_answer_is_the_librarys(name: str, load: Any, folder: Any) -> None:
    samples = noise(1.5)
    raw = load(name).run(recording(samples), {"max_new_tokens": TOKENS, "logprobs": True})
    text, values = directly(name, folder(name), samples)
    assert raw["response"] == text
    assert raw["metadata"]["logprobs"] == pytest.approx(values, abs=1e-4)
    assert raw["metadata"]["tokens"] == len(values)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_another_sound_changes_the_likelihoods(name: str, load: Any) -> None:
    one, other = (
        load(name).run(recording(noise(1.5, seed)), {"max_new_tokens": TOKENS, "logprobs": True})["metadata"][
            "logprobs"
        ]
        for seed in (0, 3)
    )
    assert not np.allclose(one[:3], other[:3], atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("samples", [np.zeros(RATE, np.float32), np.zeros(1, np.float32), noise(0.01)])
def test_silence_and_an_instant_are_heard_too(name: str, load: Any, samples: Any) -> None:
    raw = load(name).run(recording(samples), {"max_new_tokens": TOKENS, "logprobs": True})
    assert np.isfinite(raw["metadata"]["logprobs"]).all()
    assert raw["metadata"]["duration"] == round(len(samples) / RATE, 3)


def test_a_recording_without_samples_is_refused(load: Any) -> None:
    with pytest.raises(InvalidInputError, match="not one sample"):
        load("moonshine").run(recording(np.zeros(0, np.float32)), {})


def test_a_long_recording_is_heard_in_pieces_cut_where_it_is_quiet(load: Any, monkeypatch: Any) -> None:
    from src.inference.engines.transformers.speech import Heard

    runner, heard = load("moonshine"), list[Any]()

    def hear(samples: Any, options: dict[str, Any], said: Any = None) -> Heard:
        heard.append(samples)
        return Heard(f"piece {len(heard)}", tokens=4, logprobs=[-1.0 * len(heard)])

    monkeypatch.setattr(runner, "hear", hear)
    long = np.concatenate([noise(22, 1), np.zeros(RATE, np.float32), noise(20, 2)])
    raw = runner.run(recording(long), {"return_timestamps": True, "logprobs": True})
    assert np.array_equal(np.concatenate(heard), long)
    assert raw["response"] == "piece 1 piece 2"
    cut = raw["chunks"][0]["timestamp"][1]
    assert 22 < cut < 23
    assert [chunk["timestamp"] for chunk in raw["chunks"]] == [[0.0, cut], [cut, 43.0]]
    assert (raw["metadata"]["pieces"], raw["metadata"]["tokens"]) == (2, 8)
    assert raw["metadata"]["logprobs"] == [-1.0, -2.0]


def test_what_is_never_quiet_is_cut_with_a_warning(load: Any) -> None:
    raw = load("moonshine").run(recording(noise(40)), {"max_new_tokens": 9})
    assert any("never quiet near" in warning for warning in raw["warnings"])


def test_an_answer_cut_by_its_bound_says_so(load: Any) -> None:
    raw = load("moonshine").run(recording(noise(1.5)), {"max_new_tokens": 3})
    assert (raw["metadata"]["tokens"], raw["metadata"]["finish_reason"]) == (3, "length")
    assert any("set max_new_tokens higher" in warning for warning in raw["warnings"])


def test_the_bound_counts_all_pieces_together(load: Any) -> None:
    assert load("moonshine").run(recording(noise(70)), {"max_new_tokens": 20})["metadata"]["tokens"] == 20


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"language": "en"}, "language"),
        ({"task": "translate"}, "task"),
        ({"temperature": 0.5}, "temperature"),
        ({"stop": "a"}, "stop"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"num_frames": 3}, "num_frames"),
        ({"return_timestamps": "word"}, "return_timestamps"),
    ],
)
def test_options_that_it_cannot_honour_are_warned_of(load: Any, options: dict[str, Any], name: str) -> None:
    raw = load("moonshine").run(recording(noise(1)), {"max_new_tokens": 4, **options})
    assert any(f"option '{name}'" in warning for warning in raw["warnings"])
    assert isinstance(raw["response"], str)


def test_beams_are_searched(load: Any, folder: Any) -> None:
    from transformers import AutoFeatureExtractor, AutoModelForSpeechSeq2Seq, AutoTokenizer

    path, samples = folder("speech_to_text"), noise(1.5)
    inputs = AutoFeatureExtractor.from_pretrained(path)(samples, sampling_rate=RATE, return_tensors="pt")
    model = AutoModelForSpeechSeq2Seq.from_pretrained(path).eval()
    ids = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False, num_beams=4)[0, 1:]
    raw = load("speech_to_text").run(recording(samples), {"max_new_tokens": TOKENS, "num_beams": 4})
    assert raw["response"] == AutoTokenizer.from_pretrained(path).decode(ids, skip_special_tokens=True).strip()


def test_a_caller_who_is_gone_ends_it_within_a_step(load: Any) -> None:
    asked = []

    def gone() -> bool:
        asked.append(1)
        return len(asked) > 5

    with pytest.raises(CancelledError), stoppable(gone):
        load("moonshine").run(recording(noise(70)), {"max_new_tokens": 2000})
    assert len(asked) < 12


def test_the_model_says_which_rate_it_wants(load: Any) -> None:
    assert load("moonshine").media == {"sampling_rate": RATE}
    with pytest.raises(InvalidInputError, match="wants 16000"):
        load("moonshine").run({"samples": noise(1), "rate": 8000, "seconds": 2.0}, {})


@pytest.mark.parametrize("kind", ["dia", "pop2piano", "vibevoice"])
def test_a_model_that_makes_sound_is_refused(tmp_path: Path, kind: str) -> None:
    from src.inference.engines.transformers.speech_models import AnySpeechRunner

    (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    with pytest.raises(InvalidInputError, match="cannot transcribe"):
        AnySpeechRunner.load("speaker", tmp_path, device="cpu", dtype="auto", trust_remote_code=False)
