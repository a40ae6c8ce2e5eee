"""Speech and sounds asked of the running service and of the Python door: held-out inputs are answered rightly."""

import base64
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samples.inputs import sounds, speech
from samples.inputs.sounds import LABELS, RATE, draw_sound
from samples.train_demo_asr import exam
from tests.documented.conftest import managed
from tests.integration.conftest import manager_of
from tests.service import ROOT, Service, running_service
from tests.unit.media import media_files

RNG = random.Random("service")
SENTENCES = {language: exam(10, language, RNG) for language in speech.SOUNDS}
SOUNDS = [draw_sound(RNG, held_out=True, label=label) for label in LABELS for _ in range(2)]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the two samples that hear."""
    with running_service(with_samples(tmp_path_factory.mktemp("speech") / "data")) as running:
        yield running


@pytest.fixture(scope="module")
def ask(heard: Service) -> Callable[..., Any]:
    """Posts samples as a WAV in a data URI; returns the response."""

    def post(kind: str, samples: Any, rate: int = RATE, /, **options: Any) -> Any:
        model = {"asr": "demo-asr", "audio-classification": "demo-audio"}[kind]
        uri = f"data:audio/wav;base64,{base64.b64encode(wav(samples, rate)).decode()}"
        body = {"task": kind, "engine": "transformers", "model_name": model, "data": {"audio": uri}, "options": options}
        return heard.post("/inference/infer", body)

    return post


def with_samples(data_dir: Path) -> Path:
    """Registers the two samples that hear in a new data folder."""
    data_dir.mkdir()
    models = manager_of(data_dir)
    for name, task in (("demo-asr", "asr"), ("demo-audio", "audio-classification")):
        tags = {"task": task, "engine": "transformers"}
        models.register_model_to_mlflow(name, "local", ROOT / "samples" / name, tags, stage="production")
    models.close()
    return data_dir


def wav(samples: Any, rate: int = RATE) -> bytes:
    return media_files.wav(np.rint(np.clip(samples, -1, 1) * 32767).astype(np.int16), rate)


def result(response: Any) -> Any:
    assert response.status_code == 200, response.text
    return response.json()["result"]


@pytest.mark.slow
@pytest.mark.parametrize("language", list(SENTENCES))
def test_sentences_that_training_never_heard_are_written_down(
    ask: Any, language: str, figure: Callable[[str], None]
) -> None:
    answers = [result(ask("asr", sentence.audio)) for sentence in SENTENCES[language]]
    right = [
        answer["transcription"] == sentence.text for answer, sentence in zip(answers, SENTENCES[language], strict=True)
    ]
    figure(f"{sum(right)} of {len(right)} held-out sentences in {language} written down exactly over HTTP")
    assert sum(right) >= 0.9 * len(right)
    assert [answer["language"] for answer in answers].count(language) >= 0.9 * len(right)


@pytest.mark.slow
def test_sounds_that_training_never_heard_are_named(ask: Any, figure: Callable[[str], None]) -> None:
    answers = [result(ask("audio-classification", sound.audio)) for sound in SOUNDS]
    right = [answer["labels"][0] == sound.label for answer, sound in zip(answers, SOUNDS, strict=True)]
    figure(f"{sum(right)} of {len(right)} held-out sounds named rightly over HTTP")
    assert sum(right) >= 0.9 * len(right)
    assert all(answer["scores"] == sorted(answer["scores"], reverse=True) for answer in answers)
    assert all(sum(answer["scores"]) == pytest.approx(1) for answer in answers)


@pytest.mark.slow
def test_silence_is_not_answered_rightly(ask: Any) -> None:
    rng = random.Random("silence")
    texts = [result(ask("asr", speech.silence(rng)))["transcription"] for _ in SENTENCES["en"]]
    assert not any(text == sentence.text for text, sentence in zip(texts, SENTENCES["en"], strict=True))
    named = [result(ask("audio-classification", sounds.silence(rng)))["labels"][0] for _ in SOUNDS]
    assert sum(name == sound.label for name, sound in zip(named, SOUNDS, strict=True)) <= 0.2 * len(SOUNDS)


@pytest.mark.slow
def test_times_and_translation_and_another_rate(ask: Any) -> None:
    sentence = SENTENCES["en"][0]
    told = result(ask("asr", sentence.audio, return_timestamps="word"))
    assert [chunk["text"] for chunk in told["chunks"]] == list(sentence.words)
    assert told["metadata"]["duration"] == pytest.approx(len(sentence.audio) / RATE, abs=0.001)
    doubled = np.repeat(sentence.audio, 2)
    assert result(ask("asr", doubled, 2 * RATE))["transcription"] == sentence.text
    digits = SENTENCES["zh"][0]
    translated = result(ask("asr", digits.audio, language="chinese", task="translate"))["transcription"]
    assert translated.isascii()
    assert len(translated.split()) == len(digits.words)


@pytest.mark.slow
def test_the_other_labels_are_cut_by_top_k(ask: Any) -> None:
    answer = result(ask("audio-classification", SOUNDS[0].audio, top_k=3))
    assert len(answer["labels"]) == len(answer["scores"]) == 3
    assert len(result(ask("audio-classification", SOUNDS[0].audio))["labels"]) == len(LABELS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "error"),
    [({"language": "klingon"}, "it has en, zh"), ({"num_beams": 2, "logprobs": True}, "num_beams")],
)
def test_what_cannot_be_is_a_400(ask: Any, options: dict[str, Any], error: str) -> None:
    response = ask("asr", SENTENCES["en"][0].audio, **options)
    assert response.status_code == 400
    assert error in response.json()["error"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["asr", "audio-classification"])
def test_a_recording_of_no_length_is_a_400(ask: Any, task: str) -> None:
    response = ask(task, np.zeros(0, np.float32))
    assert response.status_code == 400
    assert "data.audio" in response.json()["error"]


@pytest.mark.slow
def test_the_python_door_takes_a_path_an_array_and_bytes(tmp_path: Path) -> None:
    sentence, sound = SENTENCES["en"][1], SOUNDS[3]
    path = tmp_path / "speech.wav"
    path.write_bytes(wav(sentence.audio))
    with managed(with_samples(tmp_path / "data")) as manager:

        def answer(task: str, model: str, audio: Any) -> Any:
            told = manager.infer(task, "transformers", model, {"audio": audio})
            assert told["success"], told
            return told["result"]

        for audio in (path, str(path), path.read_bytes(), {"array": sentence.audio, "sampling_rate": RATE}):
            assert answer("asr", "demo-asr", audio)["transcription"] == sentence.text
        named = answer("audio-classification", "demo-audio", (sound.audio, RATE))
    assert named["labels"][0] == sound.label
