"""Sounds heard together, on tiny models of real architectures: the answers are those that each gets alone."""

import logging
from typing import Any

import numpy as np
import pytest

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stoppable
from tests import tiny_classifiers, tiny_speech
from tests.batched import Folders, answers, check, same
from tests.tiny_speech import RATE, noise, recording

pytestmark = pytest.mark.xdist_group("torch")

SOUNDS = [recording(noise(seconds, seed)) for seed, seconds in enumerate((1.0, 0.83, 1.3, 1.0, 1.21))]
HEARD = {"max_new_tokens": 6, "logprobs": True}
EVERYTHING = {"logprobs": True, "return_timestamps": "word"}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("sounds"))


@pytest.mark.parametrize(
    ("name", "options", "together"),
    [
        ("wav2vec2", {"by_frame": True}, 5),
        ("wav2vec2", {}, 2),  # it normalises over time: those of one length alone
        ("hubert", {}, 2),
        ("spectrogram", {}, 7),  # it hears little more than a second: two of the sounds are two windows
        ("spectrogram", {"problem_type": "multi_label_classification"}, 7),
        ("whisper_encoder", {}, 5),
    ],
)
def test_classified_sounds(load: Folders, name: str, options: dict[str, Any], together: int) -> None:
    check(load(getattr(tiny_classifiers, name), "audio-classification", **options), SOUNDS, {}, together=together)


@pytest.mark.parametrize(
    ("name", "options", "together"),
    [("wav2vec2", {"by_frame": True}, 5), ("wav2vec2", {}, 2), ("parakeet_ctc", {}, 5)],
)
def test_frames_that_say_tokens(load: Folders, name: str, options: dict[str, Any], together: int) -> None:
    check(load(getattr(tiny_speech, name), "asr", **options), SOUNDS, EVERYTHING, together=together)


@pytest.mark.parametrize("name", ["parakeet_rnnt", "parakeet_tdt"])
def test_transducers(load: Folders, name: str) -> None:
    check(load(getattr(tiny_speech, name), "asr"), SOUNDS, EVERYTHING, together=5)


@pytest.mark.parametrize("name", ["moonshine", "speech_to_text", "speecht5", "speech_encoder_decoder"])
def test_encoders_with_decoders_hear_sounds_of_one_length_together(load: Folders, name: str) -> None:
    check(load(getattr(tiny_speech, name), "asr"), SOUNDS, HEARD, together=2)


@pytest.mark.parametrize(
    "options", [HEARD, {**HEARD, "language": "zh"}, {"return_timestamps": True, "logprobs": True}, {}]
)
def test_whisper(load: Folders, options: dict[str, Any]) -> None:
    check(load(tiny_speech.whisper, "asr"), SOUNDS, options, together=5)


def test_whisper_of_english_alone(load: Folders) -> None:
    check(load(tiny_speech.whisper, "asr", multilingual=False), SOUNDS, HEARD, together=5)


def test_what_may_go_together(load: Folders) -> None:
    engine, runner = load(tiny_speech.whisper, "asr")()
    short, long = recording(noise(1)), recording(noise(6))

    def key(sound: Any, **options: Any) -> Any:
        return engine.batch_key(runner, sound, options)

    assert key(short) == key(recording(noise(2))) is not None
    assert key(short, do_sample=True) is not None
    # Several windows follow one another, beams and draws are a request's own, and a bound is shared by its windows.
    assert key(long) is None
    assert key(short, num_beams=2) is None
    assert key(short, do_sample=True, seed=1) is None
    assert key(short, return_timestamps=True) is not None
    assert key(short, return_timestamps=True, max_new_tokens=9) is None
    assert key(short, return_timestamps="word") is None


def test_a_model_that_bears_one_length_alone_says_so_in_its_key_and_once_in_the_log(
    load: Folders, caplog: pytest.LogCaptureFixture
) -> None:
    engine, runner = load(tiny_speech.wav2vec2, "asr")()
    one, other = (recording(noise(seconds)) for seconds in (1.0, 1.5))
    assert engine.batch_key(runner, one, {}) == engine.batch_key(runner, other, {})
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            engine.infer_batch(runner, [one, other], {})
    (told,) = [record.message for record in caplog.records if "together" in record.message]
    assert told.startswith("model 'it' does not run inputs of different lengths together: the logits differ by")
    assert engine.batch_key(runner, one, {}) != engine.batch_key(runner, other, {})
    assert engine.batch_key(runner, one, {}) == engine.batch_key(runner, recording(noise(1.0, 3)), {})


@pytest.mark.parametrize(
    ("build", "task"),
    [(tiny_classifiers.whisper_encoder, "audio-classification"), (tiny_speech.whisper, "asr")],
)
def test_one_that_cannot_be_heard_fails_alone(load: Folders, build: Any, task: str) -> None:
    empty = {"samples": np.zeros(0, np.float32), "rate": RATE, "seconds": 0.0}
    engine, runner = load(build, task)()
    options = {} if task != "asr" else HEARD
    found, _ = answers(engine, runner, [SOUNDS[0], empty, SOUNDS[1]], options)
    assert isinstance(found[1], InvalidInputError)
    same([found[0], found[2]], [runner.run(SOUNDS[0], options), runner.run(SOUNDS[1], options)])


def test_options_that_cannot_be_fail_each(load: Folders) -> None:
    engine, runner = load(tiny_speech.whisper, "asr")()
    found, seen = answers(engine, runner, SOUNDS[:2], {"language": "tlh"})
    assert [str(each) for each in found] == [str(found[0])] * 2
    assert "none of this model's languages" in str(found[0])
    assert seen == []


@pytest.mark.parametrize(
    ("build", "task"),
    [
        (tiny_classifiers.whisper_encoder, "audio-classification"),
        (tiny_speech.whisper, "asr"),
        (tiny_speech.parakeet_tdt, "asr"),
        (tiny_speech.parakeet_ctc, "asr"),
        (tiny_speech.moonshine, "asr"),
    ],
)
def test_a_batch_that_nobody_waits_for_is_stopped(load: Folders, build: Any, task: str) -> None:
    engine, runner = load(build, task)()
    with pytest.raises(CancelledError), stoppable(lambda: True):
        engine.infer_batch(runner, SOUNDS, {})


def test_a_batch_that_breaks_is_answered_one_by_one(
    load: Folders, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine, runner = load(tiny_speech.whisper, "asr")()
    expected = [runner.run(sound, HEARD) for sound in SOUNDS]

    def broken(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(runner, "hear_together", broken)
    with caplog.at_level(logging.WARNING):
        same(engine.infer_batch(runner, SOUNDS, HEARD), expected)
    assert "a batch of 5 failed" in caplog.text
