"""What rows that hear share: their sounds, the parts of their processors, and how cases are made of them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoFeatureExtractor, Wav2Vec2CTCTokenizer

from tests.architectures import shrinking, weights
from tests.architectures.case import Case, Change, Data, Outcome, with_field
from tests.architectures.media import Sound, sound
from tests.architectures.tokenizers_by_type import numbered, write_json

HEARD = {"max_new_tokens": 8, "logprobs": True}
"""Options of rows that write what they hear."""
LABELS = ("bell", "dog", "engine", "rain", "voice")
_LETTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'")

Build = Callable[[Path], None]
Direct = Callable[[Path, Data], Outcome]


def heard_case(
    architecture: str,
    build: Build,
    direct: Direct,
    *,
    task: str = "asr",
    options: Mapping[str, Any] = HEARD,
    rate: int = 16000,
    quick: bool = False,
) -> Case:
    """Returns a row whose only input is a sound of one second at its model's rate."""
    return Case(
        architecture=architecture,
        task=task,
        build=build,
        data=lambda: {"audio": sound(1, rate=rate)},
        changes={"audio": other_sound(rate)},
        direct=direct,
        options=options,
        quick=quick,
    )


def other_sound(rate: int) -> Change:
    """Returns the change of the sound."""
    return with_field("audio", partial(sound, 2, rate=rate))


def letters_tokenizer() -> Wav2Vec2CTCTokenizer:
    """Returns a tokenizer of capital letters, whose token 0 is CTC's blank."""
    with TemporaryDirectory() as folder:
        return Wav2Vec2CTCTokenizer(write_json(Path(folder, "vocab.json"), numbered(_LETTERS)))


def tiny_model(
    architecture: str, model_type: str, overrides: Mapping[str, Any], parts: Mapping[str, Any] | None = None
) -> Any:
    """Returns a model of a shrunk default config, with lively weights from a seed."""
    kind = getattr(transformers, architecture).config_class or CONFIG_MAPPING[model_type]
    config = shrinking.tiny(kind, {**overrides, **(parts or {})})
    weights.seeded()
    model = getattr(transformers, architecture)(config).eval()
    weights.enliven(model)
    return model


def saved(folder: Path, *parts: Any) -> None:
    """Writes a model and what goes with it into one folder."""
    for part in parts:
        part.save_pretrained(folder)


def classified(architecture: str, folder: Path, data: Data) -> Outcome:
    """Asks a classifier directly: its labels by their probabilities."""
    heard: Sound = data["audio"]
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(**extractor(heard.samples, sampling_rate=heard.rate, return_tensors="pt")).logits[0]
    ranked = logits.softmax(-1).sort(descending=True)
    return Outcome([model.config.id2label[int(place)] for place in ranked.indices], ranked.values.tolist())


def first_of_runs(frames: torch.Tensor, blank: int) -> tuple[list[int], list[float]]:
    """Returns the tokens that frames of CTC say, and the log-probability of each where it begins.

    `frames`: logits, time x tokens.
    """
    likelihoods, best = frames.float().log_softmax(-1).max(-1)
    tokens, values = list[int](), list[float]()
    for place, token in enumerate(best.tolist()):
        if token != blank and (place == 0 or token != int(best[place - 1])):
            tokens.append(token)
            values.append(float(likelihoods[place]))
    return tokens, values
