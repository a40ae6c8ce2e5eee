"""Whisper: the trained sample and a tiny random one, against the library called directly."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stoppable
from tests.service import ROOT
from tests.tiny_speech import RATE, noise, recording, whisper

pytestmark = pytest.mark.xdist_group("torch")

DEMO = ROOT / "samples" / "demo-asr"


def load(path: Path) -> Any:
    from src.inference.engines.transformers.engine import TransformersEngine

    return TransformersEngine({"device": "cpu"}).load_model(path.name, model_path=path, task="asr")


@pytest.fixture(scope="module")
def demo() -> Any:
    return load(DEMO)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(whisper(tmp_path_factory.mktemp("whisper") / "tiny"))


@pytest.fixture(scope="module")
def english(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(whisper(tmp_path_factory.mktemp("whisper") / "english", multilingual=False))


@pytest.fixture(scope="module")
def said() -> dict[str, Any]:
    """A held-out sentence in each language, and a long one."""
    from samples.inputs.speech import SOUNDS, draw_voice, speak
    from samples.train_demo_asr import exam

    rng = random.Random("whisper")
    long = speak(rng.choices(list(SOUNDS["en"]), k=30), "en", draw_voice(rng, held_out=True), rng)
    return {language: exam(1, language, rng)[0] for language in SOUNDS} | {"long": long}


@pytest.fixture(scope="module")
def directly() -> Callable[..., Any]:
    """Calls the library."""
    from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

    loaded = dict[Path, Any]()

    def call(path: Path, samples: Any, **options: Any) -> tuple[str, Any]:
        if path not in loaded:
            model = AutoModelForSpeechSeq2Seq.from_pretrained(path, local_files_only=True).eval()
            loaded[path] = AutoProcessor.from_pretrained(path, local_files_only=True), model
        processor, model = loaded[path]
        long = {"truncation": False, "padding": "longest"} if len(samples) > 5 * RATE else {}
        inputs = processor(samples, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, **long)
        output = model.generate(**inputs, do_sample=False, **options)
        tokens = output["sequences"] if isinstance(output, dict) else output
        return processor.batch_decode(tokens, skip_special_tokens=True)[0].strip(), output

    return call


@pytest.mark.parametrize("language", ["en", "zh"])
def test_it_writes_down_what_is_said_and_tells_the_language(demo: Any, said: Any, language: str) -> None:
    raw = demo.run(recording(said[language].audio), {})
    assert (raw["response"], raw["language"]) == (said[language].text, language)
    assert raw["metadata"].items() >= {"model": "demo-asr", "finish_reason": "stop", "pieces": 1}.items()


@pytest.mark.parametrize("name", ["zh", "ZH", "chinese", "Mandarin", "zh-TW", "<|zh|>"])
def test_a_language_is_told_by_code_or_name(demo: Any, said: Any, name: str) -> None:
    raw = demo.run(recording(said["zh"].audio), {"language": name, "task": "transcribe"})
    assert (raw["response"], raw["language"], raw["warnings"]) == (said["zh"].text, "zh", [])


def test_it_translates(demo: Any, said: Any) -> None:
    from samples.train_demo_asr import DIGITS

    raw = demo.run(recording(said["zh"].audio), {"task": "translate"})
    assert raw["response"] == " ".join(DIGITS[word] for word in said["zh"].words)


def test_an_unknown_language_is_refused_with_those_known(demo: Any) -> None:
    with pytest.raises(InvalidInputError, match="'klingon' is none of this model's languages: it has en, zh"):
        demo.run(recording(noise(1)), {"language": "klingon"})


@pytest.mark.parametrize("times", [False, True])
def test_the_answer_and_its_likelihoods_are_the_librarys(tiny: Any, directly: Any, tmp_path: Path, times: bool) -> None:
    import torch

    path = whisper(tmp_path / "tiny")
    options = {"language": "en", "task": "transcribe", "return_timestamps": times}
    raw = tiny.run(recording(noise(1.5)), {**options, "max_new_tokens": 9, "logprobs": True})
    text, output = directly(
        path, noise(1.5), max_new_tokens=9, return_dict_in_generate=True, output_logits=True, **options
    )
    if times:
        output, text = output["segments"][0][0]["result"], None
    sequence = output["sequences"] if times else output["sequences"][0]
    logits = output["logits"] if times else [step[0] for step in output["logits"]]
    values = [
        float(torch.log_softmax(step, -1)[token]) for step, token in zip(logits, sequence[-len(logits) :], strict=True)
    ]
    assert text is None or raw["response"] == text
    assert raw["metadata"]["logprobs"][: len(values)] == pytest.approx(values, abs=1e-4)


def test_another_sound_changes_the_likelihoods(tiny: Any) -> None:
    options = {"language": "en", "max_new_tokens": 4, "logprobs": True}
    one, other = (tiny.run(recording(noise(1.5, seed)), options)["metadata"]["logprobs"] for seed in (0, 3))
    assert not np.allclose(one[:3], other[:3], atol=1e-4)


def test_a_long_recording_is_followed_as_the_library_does(demo: Any, said: Any, directly: Any) -> None:
    raw = demo.run(recording(said["long"].audio), {"language": "en"})
    text, _ = directly(DEMO, said["long"].audio, language="en", task="transcribe", return_timestamps=True)
    assert raw["response"] == text
    assert len(text.split()) > 25


def test_segments_and_words_have_times_in_the_whole_recording(demo: Any, said: Any) -> None:
    sound = recording(said["long"].audio)
    segments = demo.run(sound, {"return_timestamps": True})
    words = demo.run(sound, {"return_timestamps": "word"})
    for raw in (segments, words):
        assert " ".join(chunk["text"] for chunk in raw["chunks"]) == raw["response"]
        starts = [chunk["timestamp"][0] for chunk in raw["chunks"]]
        assert starts == sorted(starts)
        assert all(0 <= start <= end <= sound["seconds"] for start, end in (c["timestamp"] for c in raw["chunks"]))
        assert starts[-1] > 5
    assert len(words["chunks"]) == len(words["response"].split())
    assert len(segments["chunks"]) < len(words["chunks"])


def test_times_enclose_what_is_said(demo: Any, said: Any) -> None:
    [chunk] = demo.run(recording(said["en"].audio), {"return_timestamps": True})["chunks"]
    assert chunk["timestamp"][0] == pytest.approx(said["en"].spans[0][0], abs=0.2)
    assert chunk["timestamp"][1] == pytest.approx(said["en"].spans[-1][1], abs=0.2)


def test_words_of_a_script_without_spaces_are_its_characters(demo: Any, said: Any) -> None:
    raw = demo.run(recording(said["zh"].audio), {"return_timestamps": "word"})
    assert [chunk["text"] for chunk in raw["chunks"]] == list(said["zh"].text)


def test_asking_for_words_leaves_the_attention_as_it_was(demo: Any, said: Any) -> None:
    before = demo.model.model.config._attn_implementation
    demo.run(recording(said["en"].audio), {"return_timestamps": "word"})
    assert demo.model.model.config._attn_implementation == before


@pytest.mark.parametrize("samples", [np.zeros(RATE, np.float32), np.zeros(1, np.float32)])
@pytest.mark.parametrize("times", [False, True, "word"])
def test_silence_has_no_words(demo: Any, samples: Any, times: Any) -> None:
    raw = demo.run(recording(samples), {"return_timestamps": times})
    assert (raw["response"], raw["language"], raw.get("chunks", [])) == ("", None, [])


@pytest.mark.parametrize("bound", [{"max_new_tokens": 10}, {"max_length": 10}])
def test_the_bound_counts_all_windows_together(demo: Any, said: Any, bound: dict[str, int]) -> None:
    raw = demo.run(recording(said["long"].audio), bound)
    assert raw["metadata"]["tokens"] <= 10
    assert raw["metadata"]["finish_reason"] == "length"
    assert any("set max_new_tokens higher" in warning for warning in raw["warnings"])
    assert " ".join(said["long"].words).startswith(" ".join(raw["response"].split()[:3]))


def test_beams_are_searched_and_their_likelihoods_are_not_told(demo: Any, said: Any, directly: Any) -> None:
    raw = demo.run(recording(said["en"].audio), {"num_beams": 3})
    assert raw["response"] == directly(DEMO, said["en"].audio, num_beams=3)[0]
    with pytest.raises(InvalidInputError, match="'logprobs' needs num_beams 1"):
        demo.run(recording(said["en"].audio), {"num_beams": 3, "logprobs": True})


def test_drawing_tokens_follows_its_seed(tiny: Any) -> None:
    options = {"do_sample": True, "temperature": 2.0, "max_new_tokens": 12, "language": "en", "logprobs": True}
    drawn = [tiny.run(recording(noise(1)), {**options, "seed": seed})["metadata"]["logprobs"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({}, None),
        ({"language": "en", "task": "transcribe"}, None),
        ({"language": "english"}, None),
        ({"language": "zh"}, "option 'language'"),
        ({"task": "translate"}, "option 'task'"),
        ({"return_timestamps": "word"}, "cannot time words"),
    ],
)
def test_an_english_one_says_what_it_cannot_do(english: Any, options: dict[str, Any], warned: str | None) -> None:
    raw = english.run(recording(noise(1)), {**options, "max_new_tokens": 5})
    told = [warning for warning in raw["warnings"] if "max_new_tokens" not in warning]
    assert told == [] if warned is None else warned in told[0]
    assert raw["language"] in ("en", None)


def test_a_caller_who_is_gone_ends_a_long_one_within_a_step(tiny: Any) -> None:
    asked = []

    def gone() -> bool:
        asked.append(1)
        return len(asked) > 8

    with pytest.raises(CancelledError), stoppable(gone):
        tiny.run(recording(noise(60)), {"language": "en"})
    assert len(asked) < 16


@pytest.mark.parametrize("more", [0, 1, 159, 160, 400, 16_001, 240_000])
def test_a_long_recordings_spectrogram_is_that_of_the_whole(tiny: Any, more: int) -> None:
    from src.inference.engines.transformers.whisper_features import long_features

    extractor = tiny.processor.feature_extractor
    samples = np.concatenate([0.01 * noise(32, 1), noise(29, 2)])[: 30 * RATE + more]
    whole = extractor(
        samples,
        sampling_rate=RATE,
        truncation=False,
        padding="longest",
        return_attention_mask=True,
        return_tensors="pt",
    )
    found = long_features(extractor, samples)
    assert found["input_features"].shape == whole["input_features"].shape
    assert found["input_features"].numpy() == pytest.approx(whole["input_features"].numpy(), abs=1e-5)
    assert found["attention_mask"].tolist() == whole["attention_mask"].tolist()


def test_a_long_one_is_stopped_while_its_spectrogram_is_made(tiny: Any) -> None:
    asked = list[int]()

    def gone() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(CancelledError), stoppable(gone):
        tiny.run(recording(np.tile(noise(60), 10)), {})
    assert len(asked) == 4
