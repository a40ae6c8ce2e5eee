"""Speech recognition by CTC on tiny models, against the library called directly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.core.errors import CancelledError
from src.inference.engines.base import stoppable
from tests import tiny_speech
from tests.tiny_speech import RATE, noise, recording

pytestmark = pytest.mark.xdist_group("torch")

ARCHITECTURES = ("wav2vec2", "hubert", "parakeet_ctc")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    root, loaded = tmp_path_factory.mktemp("ctc"), dict[str, tuple[Any, Path]]()

    def get(name: str) -> tuple[Any, Path]:
        from src.inference.engines.transformers.ctc import CtcRunner

        if name not in loaded:
            path = getattr(tiny_speech, name)(root / name)
            runner = CtcRunner.load(name, path, device="cpu", dtype="auto", trust_remote_code=False)
            loaded[name] = runner, path
        return loaded[name]

    return get


def directly(path: Path, samples: Any) -> tuple[Any, Any]:
    """The library's text, and the log-probabilities of all frames."""
    import torch
    from transformers import AutoModelForCTC, AutoProcessor

    processor, model = AutoProcessor.from_pretrained(path), AutoModelForCTC.from_pretrained(path).eval()
    inputs = processor(samples, sampling_rate=RATE, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits
        ids = model.generate(**inputs) if hasattr(model, "generate") else logits.argmax(-1)
    return processor.batch_decode(ids)[0].strip(), (ids[0].tolist(), torch.log_softmax(logits[0], -1))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_answer_is_the_librarys(name: str, load: Any) -> None:
    runner, path = load(name)
    raw = runner.run(recording(noise(2)), {"logprobs": True})
    text, (ids, likelihoods) = directly(path, noise(2))
    assert raw["response"] == text
    assert len(text) > 10
    blank = runner.tokenizer.pad_token_id
    starts = [at for at, token in enumerate(ids) if token != blank and (at == 0 or ids[at - 1] != token)]
    assert raw["metadata"]["logprobs"] == pytest.approx([float(likelihoods[at, ids[at]]) for at in starts], abs=1e-4)
    assert raw["metadata"]["tokens"] == len(starts)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_another_sound_is_another_text(name: str, load: Any) -> None:
    one, other = (load(name)[0].run(recording(noise(2, seed)), {})["response"] for seed in (0, 3))
    assert one != other


def scripted(runner: Any, monkeypatch: pytest.MonkeyPatch, said: Callable[[Any], str]) -> None:
    """Makes the model say for each frame of 20 ms the letter that `said` finds in its samples; `_` is a blank."""

    def window(samples: Any) -> tuple[list[int], list[float]]:
        frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
        vocabulary = {"_": runner.tokenizer.pad_token_id} | runner.tokenizer.get_vocab()
        return [vocabulary[said(frame)] for frame in frames], [0.0] * len(frames)

    monkeypatch.setattr(runner, "_window", window)


def sung(text: str, frames: int) -> Any:
    """Returns sound in which each letter lasts so many frames, told by its loudness."""
    levels = [0 if letter == "_" else 27 if letter == "|" else ord(letter) - 96 for letter in text]
    return np.repeat(np.array(levels, np.float32) / 100, 320 * frames)


def letter(frame: Any) -> str:
    level = round(float(frame[0]) * 100)
    return "_" if level == 0 else "|" if level == 27 else chr(96 + level)


@pytest.mark.parametrize("seconds", [5, 28, 30, 61, 130])
def test_long_sound_comes_out_without_doubles_or_gaps(load: Any, monkeypatch: Any, seconds: int) -> None:
    runner, _ = load("wav2vec2")
    rng = np.random.default_rng(seconds)
    text = "".join(rng.choice(list("abcdefghijklmno"), seconds * 5))
    scripted(runner, monkeypatch, letter)
    written = "_".join(text)
    raw = runner.run(recording(sung(written, 5)), {})
    assert raw["response"] == text


def test_words_and_segments_have_their_times(load: Any, monkeypatch: Any) -> None:
    runner, _ = load("wav2vec2")
    scripted(runner, monkeypatch, letter)
    sound = sung("__no_|goo__|" + "_" * 20 + "stop", 5)  # a letter is a tenth of a second
    words = runner.run(recording(sound), {"return_timestamps": "word"})
    assert words["response"] == "no go stop"
    assert words["chunks"] == [
        {"text": "no", "timestamp": [0.2, 0.4]},
        {"text": "go", "timestamp": [0.6, 0.9]},
        {"text": "stop", "timestamp": [3.2, 3.6]},
    ]
    assert runner.run(recording(sound), {"return_timestamps": True})["chunks"] == [
        {"text": "no go", "timestamp": [0.2, 0.9]},
        {"text": "stop", "timestamp": [3.2, 3.6]},
    ]


@pytest.mark.parametrize("name", ["wav2vec2", "parakeet_ctc"])
def test_words_make_up_the_text(name: str, load: Any) -> None:
    raw = load(name)[0].run(recording(noise(3)), {"return_timestamps": "word"})
    assert " ".join(chunk["text"] for chunk in raw["chunks"]) == raw["response"]
    times = [second for chunk in raw["chunks"] for second in chunk["timestamp"]]
    assert times == sorted(times)
    assert times[-1] <= 3.0


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("samples", [np.zeros(RATE, np.float32), np.zeros(1, np.float32)])
def test_silence_and_an_instant_are_heard_too(name: str, load: Any, samples: Any) -> None:
    raw = load(name)[0].run(recording(samples), {"logprobs": True})
    assert np.isfinite(raw["metadata"]["logprobs"]).all()


def test_options_about_generating_are_warned_of(load: Any) -> None:
    raw = load("wav2vec2")[0].run(recording(noise(1)), {"num_beams": 4, "language": "en", "max_new_tokens": 5})
    for name in ("num_beams", "language", "max_new_tokens"):
        assert any(f"option '{name}'" in warning for warning in raw["warnings"])


def test_a_caller_who_is_gone_ends_it_within_a_window(load: Any) -> None:
    asked = []

    def gone() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(CancelledError), stoppable(gone):
        load("wav2vec2")[0].run(recording(noise(130)), {})
    assert len(asked) == 3
