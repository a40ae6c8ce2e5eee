"""Cases of vlm, ocr, video and documents, and how transformers is asked directly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from tests.architectures.case import GREEDY, Case, Outcome, with_field
from tests.architectures.media import Clip, Document, clip, page, picture
from tests.architectures.tokens import generated

Build = Callable[[Path], None]
Direct = Callable[[Path, dict[str, Any]], Outcome]
QUESTION, OTHER_QUESTION = "what is in the picture?", "how many stars are there?"


def vlm(architecture: str, build: Build, direct: Direct, *, quick: bool = False, side: int = 64) -> Case:
    """Returns a row that asks about a picture."""
    return Case(
        architecture,
        "vlm",
        build,
        lambda: {"image": picture(1, side, side), "prompt": QUESTION},
        {
            "image": with_field("image", lambda: picture(2, side, side)),
            "prompt": with_field("prompt", lambda: OTHER_QUESTION),
        },
        direct,
        options=GREEDY,
        quick=quick,
    )


def load(folder: Path, kind: Any = None) -> tuple[Any, Any]:
    """Returns a folder's model and processor as transformers' own Auto classes load them."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    return (kind or AutoModelForImageTextToText).from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)


def by_chat(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks by the processor's chat template, the picture before the question."""
    return chat(folder, [{"type": "image", "image": Image.fromarray(data["image"])}], data["prompt"])


def chat(folder: Path, media: list[dict[str, Any]], prompt: str, **extra: Any) -> Outcome:
    """Asks with one user message that has media and a text."""
    model, processor = load(folder)
    messages = [{"role": "user", "content": [*media, {"type": "text", "text": prompt}]}]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **extra
    ).to(model.dtype)
    skip = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    return generated(model, processor.tokenizer, inputs, skip=skip)


def by_text(form: str, *, short: int = 0) -> Direct:
    """Returns a direct call that writes the prompt into a form: `USER: <image>\\n{prompt} ASSISTANT:`.

    `short`: by how many tokens the prompt is shorter where `generate` gives it back.
    """

    def direct(folder: Path, data: dict[str, Any]) -> Outcome:
        model, processor = load(folder)
        text = form.replace("{prompt}", data["prompt"])
        inputs = processor(images=Image.fromarray(data["image"]), text=text, return_tensors="pt")
        return generated(model, processor.tokenizer, inputs, skip=inputs["input_ids"].shape[1] - short)

    return direct


def ocr(architecture: str, build: Build, direct: Direct, *, prompt: str | None = None, quick: bool = False) -> Case:
    """Returns a row that reads one line of words; `prompt`: the words to ask with, None for the model's own."""
    asked = {} if prompt is None else {"prompt": prompt}

    def read(text: str) -> dict[str, Any]:
        return {"image": page(text, 128, 32), **asked}

    return Case(
        architecture,
        "ocr",
        build,
        lambda: read("total 42 paid"),
        {"image": with_field("image", lambda: read("Kiwi 7 & plum 19")["image"])},
        direct,
        options=GREEDY,
        quick=quick,
    )


def talked_video(architecture: str, build: Build, direct: Direct, *, quick: bool = False) -> Case:
    """Returns a row that asks about a clip of eight frames, all of which are shown."""
    return Case(
        architecture,
        "video-analysis",
        build,
        lambda: {"video": clip(1), "prompt": "what happens in the video?"},
        {"frame": _other_frame, "prompt": with_field("prompt", lambda: OTHER_QUESTION)},
        direct,
        options={**GREEDY, "num_frames": 8},
        quick=quick,
    )


def classified_video(architecture: str, build: Build, direct: Direct, *, quick: bool = False) -> Case:
    """Returns a row that sorts a clip of as many frames as the model takes."""
    changes = {"frame": _other_frame}
    return Case(architecture, "video-analysis", build, lambda: {"video": clip(1)}, changes, direct, quick=quick)


def _other_frame(data: dict[str, Any]) -> dict[str, Any]:
    frames = data["video"].frames.copy()
    frames[3] = picture(77)
    return {**data, "video": Clip(frames, data["video"].fps)}


def video_by_chat(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks by the chat template about frames that are shown as they are."""
    model, processor = load(folder)
    content = [{"type": "video"}, {"type": "text", "text": data["prompt"]}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return _about_video(model, processor, text, data["video"])


def video_by_text(form: str) -> Direct:
    """Returns a direct call that writes the prompt into a form with a place for the video."""

    def direct(folder: Path, data: dict[str, Any]) -> Outcome:
        model, processor = load(folder)
        return _about_video(model, processor, form.replace("{prompt}", data["prompt"]), data["video"])

    return direct


def _about_video(model: Any, processor: Any, text: str, shown: Clip) -> Outcome:
    count, height, width, _ = shown.frames.shape
    facts = {"total_num_frames": count, "fps": shown.fps, "duration": count / shown.fps, "height": height}
    inputs = processor(
        text=[text],
        videos=[shown.frames],
        video_metadata=[{**facts, "width": width, "frames_indices": list(range(count))}],
        do_sample_frames=False,
        return_tensors="pt",
    )
    return generated(model, processor.tokenizer, inputs, skip=inputs["input_ids"].shape[1])


def document(architecture: str, build: Build, direct: Direct, *, quick: bool = False) -> Case:
    """Returns a row that asks about the picture of a page."""
    return Case(
        architecture,
        "document-analysis",
        build,
        lambda: {"document": Document([page("Invoice 4711\nTotal 93.50")]), "query": "what is the total?"},
        {
            "page": with_field("document", lambda: Document([page("Receipt 38\nSum 1.25 euro\npaid in cash")])),
            "prompt": with_field("query", lambda: "which number has the invoice?"),
        },
        direct,
        options=GREEDY,
        quick=quick,
    )


def document_by_chat(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks about a page by the chat template."""
    found = chat(folder, [{"type": "image", "image": Image.fromarray(data["document"].pages[0])}], data["query"])
    return trimmed(found)


def trimmed(found: Outcome) -> Outcome:
    """Returns an answer without the blanks around it."""
    return Outcome(str(found.answer).strip(), found.numbers)
