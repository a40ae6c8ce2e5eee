"""How pictures and a written prompt become a model's inputs: by its processor, or as an older model wants it."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from PIL import ImageFont
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

from src.inference.types import JsonObject

Encoder = Callable[[Any, str, JsonObject], Mapping[str, Any]]
"""(processor, written prompt, media as keyword arguments of processors) → the model's inputs."""

# Made for training; generate() would count a loss with it.
_FOR_TRAINING = ("labels",)


class PicturesAndText:
    """An image processor and a tokenizer that were saved side by side, without a processor class for both."""

    def __init__(self, image_processor: Any, tokenizer: Any) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer


def load_processor(path: Path, **kwargs: Any) -> Any:
    """Returns a folder's processor, or its image processor and tokenizer as one."""
    found = AutoProcessor.from_pretrained(path, **kwargs)
    if hasattr(found, "image_processor"):
        return found
    pictures, tokenizer = (
        AutoImageProcessor.from_pretrained(path, **kwargs),
        AutoTokenizer.from_pretrained(path, **kwargs),
    )
    return PicturesAndText(pictures, tokenizer)


def encode(kind: str, processor: Any, text: str, media: JsonObject) -> dict[str, Any]:
    """Returns the inputs of a model of type `kind` for one request.

    `media`: `images` (a list of pictures in a list) or `videos`, as processors take them. Raises the library's
    ValueError for what the processor cannot take.
    """
    with warnings.catch_warnings():
        # Some processors look at the tensors that they have just made by way of numpy.
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword", DeprecationWarning)
        encoding = _ENCODERS.get(kind, _by_processor)(processor, text, media)
    return {name: value for name, value in encoding.items() if name not in _FOR_TRAINING}


def _by_processor(processor: Any, text: str, media: JsonObject) -> Mapping[str, Any]:
    # A template that writes the first token itself is not to get another one.
    bos = getattr(getattr(processor, "tokenizer", None), "bos_token", None)
    more = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
    encoding: Mapping[str, Any] = processor(text=[text], return_tensors="pt", **media, **more)
    return encoding


def _one_picture(processor: Any, text: str, media: JsonObject) -> Mapping[str, Any]:
    """For processors that know no pictures in lists of lists."""
    images = {"images": media["images"][0]} if "images" in media else {}
    return _by_processor(processor, text, {**media, **images})


def _idefics(processor: Any, text: str, media: JsonObject) -> Mapping[str, Any]:
    # A piece of text that is a URL would be fetched by the processor; one behind "User: " is none.
    said = "User: " + text.removeprefix("User:").lstrip()
    pictures = media.get("images", [[]])[0]
    parts = [said, *pictures, "<end_of_utterance>", "\nAssistant:"]
    encoding: Mapping[str, Any] = processor(text=[parts], return_tensors="pt")
    return encoding


def _git(processor: Any, text: str, media: JsonObject) -> Mapping[str, Any]:
    """The answer goes on from the prompt, so no [SEP] may end it."""
    tokenizer = processor.tokenizer
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    tokens = torch.tensor([[tokenizer.cls_token_id, *ids]])
    pixels = processor.image_processor(media["images"][0], return_tensors="pt")["pixel_values"]
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "pixel_values": pixels}


def _pix2struct(processor: Any, text: str, media: JsonObject) -> Mapping[str, Any]:
    """A model for questions reads them in the picture's header; another one writes on from the prompt."""
    pictures = processor.image_processor
    if pictures.is_vqa and "render_header" not in vars(pictures):
        # Left to itself it would download a font, and its processor hands it none on.
        draw, font = pictures.render_header, cast(ImageFont.FreeTypeFont, ImageFont.load_default(36)).font_bytes
        pictures.render_header = lambda image, header, **_: draw(image, header, font_bytes=font)
    said: JsonObject = {"text": text} if pictures.is_vqa else {"text": text or None, "add_special_tokens": False}
    encoding: Mapping[str, Any] = processor(images=media["images"][0][0], return_tensors="pt", **said)
    return encoding


def _picture_alone(processor: Any, text: str, media: JsonObject) -> Mapping[str, Any]:
    """The picture goes to the encoder; a prompt of the model's own tokens starts the answer."""
    inputs = {"pixel_values": processor.image_processor(media["images"][0], return_tensors="pt")["pixel_values"]}
    if text:
        inputs["decoder_input_ids"] = processor.tokenizer(text, add_special_tokens=False, return_tensors="pt")[
            "input_ids"
        ]
    return inputs


def _udop(processor: Any, text: str, media: JsonObject) -> Mapping[str, Any]:
    """Words are read from the picture by the model alone: none are given."""
    words: JsonObject = {} if processor.image_processor.apply_ocr else {"text_pair": [""], "boxes": [[0, 0, 0, 0]]}
    encoding: Mapping[str, Any] = processor(media["images"][0][0], text, return_tensors="pt", **words)
    return encoding


_ENCODERS: Mapping[str, Encoder] = {
    "blip": _one_picture,
    "blip-2": _one_picture,
    "instructblip": _one_picture,
    "florence2": _one_picture,
    "kosmos-2": _one_picture,
    "kosmos-2.5": _one_picture,
    "got_ocr2": _one_picture,
    "pp_chart2table": _one_picture,
    "idefics": _idefics,
    "git": _git,
    "pix2struct": _pix2struct,
    "pp_formulanet": _picture_alone,
    "udop": _udop,
    "vision-encoder-decoder": _picture_alone,
}
