"""Video analysis by models that write: the direct call's answer, frames, bounds, refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stoppable

pytestmark = pytest.mark.xdist_group("torch")

PROMPT = "what happens in the video?"
SHORT = {"max_new_tokens": 6, "do_sample": False, "min_length": 0}
TAKES_VIDEOS = ["llava_next_video", "video_llava", "qwen2_vl", "qwen3_vl", "smolvlm", "internvl"]
FRAMES = 8


def builders() -> dict[str, Callable[[Path], None]]:
    """Returns what saves a tiny model of each kind into a folder."""
    from tests.architectures import rows_vision_blip as blip
    from tests.architectures import rows_vision_idefics as idefics
    from tests.architectures import rows_vision_llava as llava
    from tests.architectures import rows_vision_qwen as qwen
    from tests.architectures import rows_vision_tiles as tiles

    return {
        "llava_next_video": llava.llava_next_video,
        "video_llava": llava.video_llava,
        "qwen2_vl": qwen.qwen2_vl,
        "qwen3_vl": qwen.qwen3_vl,
        "smolvlm": idefics.smolvlm,
        "internvl": tiles.internvl,
        "idefics3": idefics.idefics3,
        "blip2": blip.blip2,
    }


class Folders(dict[str, Path]):
    """Name → the folder of such a model, made when it is first asked for."""

    def __init__(self, base: Path) -> None:
        super().__init__()
        self._base = base

    def __missing__(self, name: str) -> Path:
        builders()[name](self._base / name)
        self[name] = self._base / name
        return self[name]


class Runners(dict[str, Any]):
    """Name → such a model, loaded when it is first asked for."""

    def __init__(self, folders: Folders) -> None:
        super().__init__()
        self._folders = folders

    def __missing__(self, name: str) -> Any:
        from src.inference.engines.transformers.video import VideoRunner

        where: dict[str, Any] = {"device": "cpu", "dtype": "auto", "trust_remote_code": False}
        self[name] = VideoRunner.load("tiny", self._folders[name], **where)
        return self[name]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def runners(folders: Folders) -> Runners:
    return Runners(folders)


@pytest.fixture(params=TAKES_VIDEOS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def video(count: int = FRAMES, seed: int = 0) -> dict[str, Any]:
    shades = np.random.default_rng(seed).integers(0, 255, (count, 8, 8, 3), dtype=np.uint8)
    return {
        "frames": np.kron(shades, np.ones((1, 8, 8, 1), np.uint8)),
        "timestamps": tuple(place * 0.5 for place in range(count)),
        "indices": tuple(place * 5 for place in range(count)),
        "total_frames": 5 * count,
        "fps": 10.0,
        "duration": count / 2,
        "type": "video/mp4",
    }


def ask(runner: Any, shown: dict[str, Any], prompt: str | None = PROMPT, **options: Any) -> Any:
    return runner.run({"video": shown, "prompt": prompt}, {**SHORT, **options})


def direct(folder: Path, shown: dict[str, Any], media: list[dict[str, str]], **given: Any) -> tuple[str, list[float]]:
    """Returns answer and log-probabilities by the library alone."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    text = f"USER: <video>\n{PROMPT} ASSISTANT:"
    if processor.chat_template:
        messages = [{"role": "user", "content": [*media, {"type": "text", "text": PROMPT}]}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
    more = {"add_special_tokens": False} if text.startswith(str(processor.tokenizer.bos_token)) else {}
    inputs = processor(text=[text], return_tensors="pt", **given, **more)
    with torch.inference_mode():
        output = model.generate(
            **inputs, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    ids = output.sequences[0, inputs["input_ids"].shape[1] :]
    numbers = [float(step[0].log_softmax(-1)[token]) for step, token in zip(output.logits, ids, strict=True)]
    return processor.tokenizer.decode(ids, skip_special_tokens=True), numbers


def facts(shown: dict[str, Any]) -> Any:
    from transformers.video_utils import VideoMetadata

    return VideoMetadata(
        total_num_frames=shown["total_frames"], fps=shown["fps"], duration=shown["duration"], height=64, width=64,
        frames_indices=list(shown["indices"]),
    )  # fmt: skip


def test_answer_and_logprobs_are_the_direct_calls(runners: Any, folders: Any, kind: str) -> None:
    shown = video()
    raw = ask(runners[kind], shown, logprobs=True)
    given = {"videos": [shown["frames"]], "video_metadata": [facts(shown)], "do_sample_frames": False}
    answer, numbers = direct(folders[kind], shown, [{"type": "video"}], **given)
    assert raw["response"] == answer
    assert raw["metadata"]["logprobs"] == pytest.approx(numbers, abs=1e-4)


def test_a_model_without_videos_sees_the_frames_as_pictures(runners: Any, folders: Any) -> None:
    from PIL import Image

    shown = video(3)
    pictures = [Image.fromarray(frame) for frame in shown["frames"]]
    raw = ask(runners["idefics3"], shown, logprobs=True)
    answer, numbers = direct(folders["idefics3"], shown, [{"type": "image"}] * 3, images=[pictures])
    assert raw["response"] == answer
    assert raw["metadata"]["logprobs"] == pytest.approx(numbers, abs=1e-4)


@pytest.mark.parametrize("place", [0, FRAMES - 1])
def test_another_frame_changes_the_logprobs(runners: Any, kind: str, place: int) -> None:
    shown = video()
    before = ask(runners[kind], shown, logprobs=True)["metadata"]["logprobs"]
    shown["frames"] = shown["frames"].copy()
    shown["frames"][place] = 255 - shown["frames"][place]
    after = ask(runners[kind], shown, logprobs=True)["metadata"]["logprobs"]
    assert max(abs(a - b) for a, b in zip(before, after, strict=False)) > 1e-3


def test_frames_used_are_told(runners: Any, kind: str) -> None:
    assert ask(runners[kind], video(4))["frames"] == {
        "count": 4, "indices": [0, 5, 10, 15], "timestamps": [0.0, 0.5, 1.0, 1.5],
    }  # fmt: skip


def test_a_single_frame_is_enough(runners: Any, kind: str) -> None:
    raw = ask(runners[kind], video(1))
    assert raw["frames"]["count"] == (2 if "qwen" in kind else 1)
    repeated = ["the model takes 2 frames and the video gave 1: the last one was repeated"]
    assert raw["warnings"] == (repeated if "qwen" in kind else [])


def test_max_length_leaves_the_tokens_of_frames_out(runners: Any, kind: str) -> None:
    text_tokens = ask(runners[kind], video())["metadata"]["prompt_tokens"]
    raw = runners[kind].run(
        {"video": video(16), "prompt": PROMPT}, {"max_length": text_tokens + 3, "min_length": 999, "do_sample": False}
    )
    assert raw["metadata"]["tokens"] == 3
    assert raw["metadata"]["prompt_tokens"] == text_tokens < 100


@pytest.mark.parametrize("prompt", [None, "", "  "])
def test_without_a_prompt_the_field_is_missing(runners: Any, prompt: str | None) -> None:
    with pytest.raises(InvalidInputError, match="missing field 'prompt' in data") as caught:
        ask(runners["llava_next_video"], video(), prompt)
    assert caught.value.details["missing_fields"] == ["prompt"]


def test_a_model_of_one_picture_cannot_see_a_video(runners: Any) -> None:
    with pytest.raises(InvalidInputError, match="looks at one picture at a time"):
        ask(runners["blip2"], video())


@pytest.mark.parametrize(
    ("own", "facts"),
    [
        ({"num_frames": 8}, {"num_frames": 8}),
        ({"num_frames": 500}, {"num_frames": 32}),
        ({"num_frames": None, "fps": 2.0}, {"fps": 2.0, "num_frames": 32}),
        ({"num_frames": None, "fps": 1, "max_frames": 12}, {"fps": 1.0, "num_frames": 12}),
        ({"num_frames": None, "fps": None}, {}),
    ],
)
def test_asks_for_as_many_frames_as_its_processor_would_take(
    runners: Any, monkeypatch: pytest.MonkeyPatch, own: dict[str, Any], facts: dict[str, Any]
) -> None:
    for name, value in own.items():
        monkeypatch.setattr(runners["llava_next_video"].processor.video_processor, name, value, raising=False)
    assert runners["llava_next_video"].media == facts


def test_options_of_other_tasks_are_told_of(runners: Any) -> None:
    warnings = ask(runners["llava_next_video"], video(), language="en", pages=[1])["warnings"]
    assert [warning.split("'")[1] for warning in warnings] == ["language", "pages"]


def test_writing_stops_once_nobody_waits(runners: Any, kind: str) -> None:
    with stoppable(lambda: True), pytest.raises(CancelledError):
        ask(runners[kind], video())
