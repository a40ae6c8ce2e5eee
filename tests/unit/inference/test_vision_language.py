"""VisionLanguageRunner on tiny models of real architectures, beside direct calls of transformers."""

import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as hf
from PIL import Image

from src.core.errors import InvalidInputError, ModelLoadError
from src.inference.engines.transformers import families
from src.inference.engines.transformers.description import DescriptionRunner
from src.inference.engines.transformers.vision_inputs import encode
from src.inference.models.vlm import VlmHandler
from tests.architectures.case import Case, Outcome, difference
from tests.architectures.rows_vision_blip import CASES as BLIP
from tests.architectures.rows_vision_idefics import CASES as IDEFICS
from tests.architectures.rows_vision_llava import CASES as LLAVA
from tests.architectures.rows_vision_qwen import CASES as QWEN
from tests.architectures.vision_builders import llama_tokenizer
from tests.tiny_vision import tiny_llava

pytestmark = pytest.mark.xdist_group("torch")

TOLERANCE = 1e-4
CASES = {
    case.architecture.removesuffix("ForConditionalGeneration"): case
    for case in (*LLAVA, *QWEN, *IDEFICS, *BLIP)
    if case.task == "vlm"
}
TRIED = ("Llava", "LlavaNext", "Qwen2VL", "Qwen3VL", "Idefics3", "PaliGemma", "Gemma3", "Blip2", "InstructBlip", "Blip")
EXACT: Mapping[str, Any] = {"max_new_tokens": 8, "do_sample": False, "min_length": 0, "logprobs": True}
SHORT = {**EXACT, "max_new_tokens": 3}


def picture(seed: int, height: int = 40, width: int = 56) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def load(folder: Path, architecture: str, task: str = "vlm") -> Any:
    module, _, name = str(families.runner_for(task, [architecture])).partition(":")
    runner = getattr(import_module(module), name)
    return runner.load("seer", folder, device="cpu", dtype="auto", trust_remote_code=False)


def asked(runner: Any, prompt: str, *images: Any, **options: Any) -> Any:
    handler, given = VlmHandler(), {**SHORT, **options}
    data = {"prompt": prompt, "image": [{"pixels": pixels, "type": "png"} for pixels in images]}
    return handler.postprocess(runner.run(handler.preprocess(data, given)["inputs"], given), given)


def direct(case: Case, folder: Path, data: Any) -> Outcome:
    with warnings.catch_warnings():
        # PaliGemma's processor reads its own tensors by way of numpy.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        return case.direct(folder, data)


@pytest.mark.parametrize("name", TRIED)
def test_an_answer_is_that_of_a_direct_call_and_depends_on_picture_and_prompt(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.build(tmp_path)
    runner = load(tmp_path, case.architecture)
    runner.warm_up()
    data = case.data()

    answer = asked(runner, data["prompt"], data["image"], **EXACT)
    expected = direct(case, tmp_path, data)

    assert answer["description"] == expected.answer.strip()
    logprobs = answer["metadata"]["logprobs"]
    assert difference(logprobs, expected.numbers) < TOLERANCE
    other = asked(runner, data["prompt"], np.ascontiguousarray(255 - data["image"][::-1]), **EXACT)
    assert difference(other["metadata"]["logprobs"], logprobs) > 10 * TOLERANCE
    other = asked(runner, "How many dogs?", data["image"], **EXACT)
    assert difference(other["metadata"]["logprobs"], logprobs) > 10 * TOLERANCE


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> DescriptionRunner:
    folder = tiny_llava(tmp_path_factory.mktemp("small"))
    return DescriptionRunner.load("seer", folder, device="cpu", dtype="auto", trust_remote_code=False)


@pytest.fixture(scope="module")
def one_picture(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("blip2")
    CASES["Blip2"].build(folder)
    return load(folder, CASES["Blip2"].architecture)


def test_max_length_counts_no_picture_tokens(tmp_path: Path) -> None:
    runner = DescriptionRunner.load(
        "seer", tiny_llava(tmp_path, side=336, patch=14), device="cpu", dtype="auto", trust_remote_code=False
    )
    answer = asked(runner, "What is this?", picture(1), max_length=256, max_new_tokens=4)
    assert answer["metadata"]["prompt_tokens"] < 100
    assert answer["metadata"]["tokens"] == 4


def test_pictures_that_fill_the_context_are_refused_in_words(tmp_path: Path) -> None:
    runner = DescriptionRunner.load(
        "seer", tiny_llava(tmp_path, context=20), device="cpu", dtype="auto", trust_remote_code=False
    )
    with pytest.raises(InvalidInputError, match="for pictures, and the model's context is 20") as refused:
        asked(runner, "?", picture(1))
    assert refused.value.details["media_tokens"] >= 16


def test_each_of_several_pictures_counts(small: DescriptionRunner) -> None:
    first = asked(small, "Compare.", picture(1), picture(2))["metadata"]["logprobs"]
    assert difference(first, asked(small, "Compare.", picture(1), picture(3))["metadata"]["logprobs"]) > 10 * TOLERANCE
    assert difference(first, asked(small, "Compare.", picture(3), picture(2))["metadata"]["logprobs"]) > 10 * TOLERANCE


def test_placeholders_of_the_caller_are_kept_not_doubled(small: DescriptionRunner) -> None:
    plain = asked(small, "What is this?", picture(1))
    own = asked(small, "<image>\nWhat is this?", picture(1))
    assert own["metadata"] == plain["metadata"]
    with pytest.raises(InvalidInputError, match="2 placeholders <image>"):
        asked(small, "<image><image>", picture(1))


def test_a_model_for_one_picture_refuses_two(one_picture: Any) -> None:
    with pytest.raises(InvalidInputError, match="looks at one picture and the request has 2"):
        asked(one_picture, "Compare.", picture(1), picture(2))


def test_a_video_is_shown_as_pictures_to_a_model_without_videos(small: DescriptionRunner) -> None:
    frames = np.stack([picture(1), picture(2)])
    shown = small.ask("What happens?", SHORT, video=frames)
    assert not small.takes_video
    assert shown == small.ask("What happens?", SHORT, images=list(frames))


def test_a_video_is_read_as_such_where_the_model_can(tmp_path: Path) -> None:
    CASES["Qwen2VL"].build(tmp_path)
    runner = load(tmp_path, CASES["Qwen2VL"].architecture)
    frames = np.stack([picture(seed, 56, 56) for seed in range(4)])
    facts = {"indices": [0, 5, 10, 15], "total_frames": 20, "fps": 10.0, "duration": 2.0}

    raw = runner.ask("What happens?", EXACT, video=frames, video_metadata=facts)

    assert runner.takes_video
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What happens?"}]}]
    text = runner.processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = runner.processor(text=[text], videos=[frames], do_sample_frames=False, return_tensors="pt")
    output = runner.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    ids = output[0, inputs["input_ids"].shape[1] :]
    assert raw["response"] == runner.tokenizer.decode(ids, skip_special_tokens=True)
    changed = runner.ask("What happens?", EXACT, video=frames[::-1].copy(), video_metadata=facts)
    assert difference(raw["metadata"]["logprobs"], changed["metadata"]["logprobs"]) > 10 * TOLERANCE


def test_several_sequences_are_descriptions(small: DescriptionRunner) -> None:
    answer = asked(small, "What?", picture(1), num_return_sequences=3, do_sample=True, logprobs=False, seed=1)
    assert len(answer["descriptions"]) == 3
    assert answer["description"] == answer["descriptions"][0]


def test_a_picture_that_the_processor_cannot_take_is_the_inputs_fault(tmp_path: Path) -> None:
    CASES["Qwen2VL"].build(tmp_path)
    runner = load(tmp_path, CASES["Qwen2VL"].architecture)
    with pytest.raises(InvalidInputError, match="cannot take this input: absolute aspect ratio"):
        asked(runner, "?", picture(1, 1, 900))


def test_options_of_other_tasks_are_warned_of(small: DescriptionRunner) -> None:
    raw = small.run({"prompt": "?", "images": [picture(1)]}, {**SHORT, "language": "zh", "pages": [0]})
    assert raw["warnings"] == ["option 'language' has no effect on vlm", "option 'pages' has no effect on vlm"]


def test_a_model_that_reads_no_pictures_is_refused(small: DescriptionRunner) -> None:
    with pytest.raises(ModelLoadError, match="does not read pictures"):
        DescriptionRunner("deaf", small.model, small.tokenizer)


def test_a_prompt_that_is_a_url_is_never_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = llama_tokenizer("<fake_token_around_image>", "<image>", "<end_of_utterance>")
    processor = hf.IdeficsProcessor(hf.IdeficsImageProcessor(image_size=32), tokenizer)
    fetched = []
    original = type(processor.image_processor).fetch_images

    def noted(self: Any, images: Any) -> Any:
        if isinstance(images, str):
            fetched.append(images)
            return Image.fromarray(picture(1))
        return original(self, images)

    monkeypatch.setattr(type(processor.image_processor), "fetch_images", noted)
    for prompt in ("http://127.0.0.1:9/a.png", "  http://127.0.0.1:9/", "User:http://127.0.0.1:9/", "User://127.0.0.1"):
        encode("idefics", processor, prompt, {"images": [[Image.fromarray(picture(1))]]})
    assert fetched == []
