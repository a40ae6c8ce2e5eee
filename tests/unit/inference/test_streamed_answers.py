"""Answers that are followed as they come, on tiny models of real architectures: the pieces are the final text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.core.errors import CancelledError
from src.inference.engines.base import emitting, stoppable
from src.inference.models.asr import AsrHandler
from src.inference.models.document_analysis import DocumentAnalysisHandler
from src.inference.models.ocr import OcrHandler
from src.inference.models.video_analysis import VideoAnalysisHandler
from src.inference.models.vlm import VlmHandler
from tests import tiny_documents, tiny_speech, tiny_videos
from tests.architectures.media import clip, page, picture
from tests.batched import Folders
from tests.service import ROOT
from tests.tiny_speech import RATE, noise, recording
from tests.tiny_vision import tiny_llava

pytestmark = pytest.mark.xdist_group("torch")

TEXT = {
    "vlm": (VlmHandler, "description"),
    "asr": (AsrHandler, "transcription"),
    "ocr": (OcrHandler, "text"),
    "video-analysis": (VideoAnalysisHandler, "analysis"),
    "document-analysis": (DocumentAnalysisHandler, "answer"),
}
GREEDY = {"max_new_tokens": 12, "min_length": 0, "do_sample": False}
ASKED = {"images": [picture(1)], "prompt": "what is in the picture?"}
SHOWN = clip(1, 4).frames
VIDEO = {
    "video": {
        "frames": SHOWN,
        "timestamps": [0.0, 0.1, 0.2, 0.3],
        "indices": [0, 1, 2, 3],
        "total_frames": 4,
        "fps": 8.0,
        "duration": 0.5,
    },
    "prompt": "what happens?",
}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("streamed"))


def followed(task: str, runner: Any, inputs: Any, options: dict[str, Any]) -> tuple[list[str], str]:
    """Returns the pieces, and the final text as a caller gets it."""
    pieces = list[str]()
    with emitting(pieces.append):
        raw = runner.run(inputs, dict(options))
    return pieces, final(task, raw, options)


def final(task: str, raw: Any, options: dict[str, Any]) -> str:
    handler, field = TEXT[task]
    return str(handler().postprocess(raw, options)[field])


def rows(module: str, name: str) -> Any:
    from importlib import import_module

    return getattr(import_module(f"tests.architectures.rows_{module}"), name)


@pytest.mark.parametrize(
    ("task", "build", "inputs"),
    [
        ("vlm", tiny_llava, ASKED),
        ("vlm", rows("vision_blip", "blip2"), ASKED),
        ("vlm", rows("vision_qwen", "qwen2_vl"), ASKED),
        ("ocr", tiny_llava, {"images": [page("total 42", 64, 32)], "prompt": None}),
        ("ocr", tiny_llava, {"images": [page("a", 64, 32), page("b", 64, 32)], "prompt": None}),
        ("video-analysis", tiny_llava, VIDEO),
        ("document-analysis", tiny_llava, {"query": "what?", "pages": [{"number": 0, "image": picture(3)}]}),
    ],
)
@pytest.mark.parametrize(
    "more", [{}, {"stop": ["e", "a "]}, {"do_sample": True, "seed": 3}, {"max_new_tokens": 1}], ids=str
)
def test_what_is_written_is_told_token_by_token(
    load: Folders, task: str, build: Any, inputs: Any, more: dict[str, Any]
) -> None:
    _, runner = load(build, task)()
    options = {**GREEDY, **more}
    pieces, text = followed(task, runner, inputs, options)
    assert "".join(pieces) == text == final(task, runner.run(inputs, dict(options)), options)
    assert len(pieces) > 1 or more or len(text) < 3


@pytest.mark.parametrize(
    ("task", "build", "inputs", "options"),
    [
        ("vlm", tiny_llava, ASKED, {**GREEDY, "num_beams": 2}),
        ("vlm", tiny_llava, ASKED, {**GREEDY, "do_sample": True, "seed": 1, "num_return_sequences": 3}),
        ("vlm", rows("ocr", "florence2"), {**ASKED, "prompt": "<CAPTION>"}, GREEDY),
        ("vlm", rows("vision_more", "kosmos2"), ASKED, GREEDY),
        ("vlm", rows("vision_large", "vilt"), ASKED, {}),
        ("ocr", rows("ocr", "trocr"), {"images": [page("total 42", 64, 32)], "prompt": None}, {"max_new_tokens": 6}),
        ("video-analysis", tiny_videos.CLASSIFIERS["videomae"], VIDEO, {}),
        (
            "document-analysis",
            tiny_llava,
            {"query": "what?", "pages": [{"number": place, "image": picture(place)} for place in range(2)]},
            GREEDY,
        ),
        (
            "document-analysis",
            tiny_documents.tiny_layoutlm,
            {"query": "what?", "pages": [{"number": 0, "image": None, "words": ("a", "b"), "boxes": np.ones((2, 4))}]},
            {},
        ),
    ],
)
def test_what_is_known_at_the_end_alone_is_told_as_a_whole(
    load: Folders, task: str, build: Any, inputs: Any, options: dict[str, Any]
) -> None:
    pieces, text = followed(task, load(build, task)()[1], inputs, options)
    assert pieces == ([text] if text else [])


SAID = {"logprobs": True, "max_new_tokens": 12}


@pytest.mark.parametrize("name", ["moonshine", "speech_to_text", "speecht5", "speech_encoder_decoder"])
def test_speech_is_told_token_by_token_and_in_pieces(load: Folders, name: str) -> None:
    _, runner = load(getattr(tiny_speech, name), "asr")()
    long = recording(np.concatenate([noise(22, 1), np.zeros(RATE, np.float32), noise(20, 2)]))
    for sound in (recording(noise(1)), long):
        pieces, text = followed("asr", runner, sound, {**SAID, "max_new_tokens": 40})
        assert "".join(pieces) == text
        assert len(pieces) > 2


def test_frames_are_told_window_by_window(load: Folders) -> None:
    _, runner = load(tiny_speech.wav2vec2, "asr")()
    for seconds, windows in ((1, 1), (60, 3)):
        pieces, text = followed("asr", runner, recording(noise(seconds)), {})
        assert ("".join(pieces), len(pieces)) == (text, windows)


@pytest.mark.parametrize("name", ["parakeet_ctc", "parakeet_tdt", "parakeet_rnnt"])
def test_other_hearers_tell_each_piece(load: Folders, name: str) -> None:
    _, runner = load(getattr(tiny_speech, name), "asr")()
    pieces, text = followed("asr", runner, recording(noise(1.4)), {"return_timestamps": True})
    assert pieces == [text]


@pytest.fixture(scope="module")
def demo() -> Any:
    from src.inference.engines.transformers.engine import TransformersEngine

    path = ROOT / "samples" / "demo-asr"
    return TransformersEngine({"device": "cpu"}).load_model(path.name, model_path=path, task="asr")


@pytest.fixture(scope="module")
def speech() -> Callable[[int], Any]:
    """Makes up sentences of so many words."""
    import random

    from samples.inputs.speech import SOUNDS, draw_voice, speak

    def say(words: int) -> Any:
        rng = random.Random("streamed")
        spoken = speak(rng.choices(list(SOUNDS["en"]), k=words), "en", draw_voice(rng, held_out=True), rng)
        return recording(spoken.audio)

    return say


@pytest.mark.parametrize("words", [3, 30])
@pytest.mark.parametrize("options", [{}, {"return_timestamps": True}, {"return_timestamps": "word"}, {"num_beams": 2}])
def test_whisper_is_told_as_it_goes_along(
    demo: Any, speech: Callable[[int], Any], words: int, options: dict[str, Any]
) -> None:
    sound = speech(words)
    pieces, text = followed("asr", demo, sound, options)
    assert "".join(pieces) == text == demo.run(sound, dict(options))["response"]
    assert len(pieces) > (1 if words > 3 or "num_beams" not in options else 0)


@pytest.mark.parametrize("budget", [1, 7, 20, 40])
@pytest.mark.parametrize("seed", range(3))
def test_a_random_whisper_is_told_what_it_keeps(load: Folders, budget: int, seed: int) -> None:
    # Its times are as random as its words: segments are heard again, and windows overlap.
    _, runner = load(tiny_speech.whisper, "asr")()
    options = {"language": "en", "max_new_tokens": budget, "return_timestamps": True}
    pieces, text = followed("asr", runner, recording(noise(13, seed)), options)
    assert "".join(pieces) == text


def test_the_first_piece_leaves_before_the_last_token_is_there(load: Folders) -> None:
    _, runner = load(tiny_llava, "vlm")()
    steps, told = list[int](), list[int]()
    runner.model.register_forward_hook(lambda *_: steps.append(1))
    with emitting(lambda piece: told.append(len(steps))):
        runner.run(ASKED, {**GREEDY, "max_new_tokens": 20})
    assert told[0] < 6
    assert len(told) > 3
    assert told == sorted(set(told))


def test_whisper_computes_nothing_once_its_tokens_are_spent(load: Folders) -> None:
    _, runner = load(tiny_speech.whisper, "asr")()
    heard = list[int]()
    handle = runner.model.model.encoder.register_forward_hook(lambda *_: heard.append(1))
    raw = runner.run(recording(noise(60)), {"language": "en", "max_new_tokens": 5})
    handle.remove()
    # A minute is twelve of its windows.
    assert len(heard) == 1
    assert raw["metadata"].items() >= {"tokens": 5, "finish_reason": "length"}.items()
    assert any("ran out of tokens" in warning for warning in raw["warnings"])
    assert "_retrieve_segment" not in vars(runner.model)


@pytest.mark.parametrize("steps", [0, 3, 20])
@pytest.mark.parametrize(
    ("task", "build", "inputs", "options"),
    [
        ("asr", tiny_speech.whisper, recording(noise(60)), {"language": "en"}),
        ("asr", tiny_speech.moonshine, recording(noise(20)), {}),
        ("vlm", tiny_llava, ASKED, {**GREEDY, "max_new_tokens": 200}),
    ],
)
def test_a_follower_who_leaves_ends_the_work_within_a_step(
    load: Folders, task: str, build: Callable[[Path], Path], inputs: Any, options: dict[str, Any], steps: int
) -> None:
    _, runner = load(build, task)()
    made = list[int]()
    decoder = runner.model.get_decoder()
    decoder.register_forward_hook(lambda *_: made.append(1))
    with pytest.raises(CancelledError), stoppable(lambda: len(made) > steps), emitting(lambda _: None):
        runner.run(inputs, options)
    assert len(made) <= steps + 1
