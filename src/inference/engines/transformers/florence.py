"""Florence-2's task tokens, and what its answers to them say."""

import re
from dataclasses import dataclass
from typing import Any

from src.inference.types import JsonObject

Size = tuple[int, int]
"""Width and height in pixels."""

# A line of text and the four corners of the region it stands in.
_REGION = re.compile(r"(.+?)" + r"<loc_(\d+)>" * 8)
_LOCATION = re.compile(r"<loc_\d+>")
_BINS = 1000


@dataclass(frozen=True, slots=True)
class Parsed:
    """What an answer says in words, and, for a task about regions, what its processor makes of it."""

    text: str
    regions: JsonObject | None


def florence_task(processor: Any, prompt: str) -> str | None:
    """Returns the task token that a prompt begins with."""
    tasks = processor.tasks_answer_post_processing_type
    return next((token for token in tasks if prompt.startswith(token)), None)


def parsed(processor: Any, task: str, text: str, size: Size) -> Parsed:
    """Returns what an answer (special tokens kept) to a task says; `size`: the picture's."""
    plain = plain_text(processor, text)
    kind = processor.tasks_answer_post_processing_type[task]
    # A processor saved without the rules of its tasks can parse none.
    if kind == "pure_text" or kind not in (processor.post_processor_config or {}):
        return Parsed(plain, None)
    return Parsed(plain, processor.post_process_generation(text=text, task=task, image_size=size)[task])


def ocr_lines(processor: Any, text: str, size: Size) -> list[JsonObject]:
    """Returns the lines of an answer to `<OCR_WITH_REGION>`, with their box and its four corners in pixels."""
    lines: list[JsonObject] = []
    for content, *places in _REGION.findall(_without_special(processor, text)):
        # Each number is the middle of one of a thousand parts of a side; x and y take turns.
        found = [round((int(place) + 0.5) * size[index % 2] / _BINS) for index, place in enumerate(places)]
        across, down = found[::2], found[1::2]
        box = [min(across), min(down), max(across), max(down)]
        lines.append({"text": _LOCATION.sub("", content).strip(), "box": box, "polygon": found})
    return lines


def plain_text(processor: Any, text: str) -> str:
    """Returns an answer without its special tokens and places."""
    return _LOCATION.sub("", _without_special(processor, text)).strip()


def _without_special(processor: Any, text: str) -> str:
    tokenizer = processor.tokenizer
    for token in {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}:
        text = text.replace(token, "") if token else text
    return text
