"""Guesses what a model folder is for: by its card's `pipeline_tag`, its architecture's name, its files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.core.sources.small_json import read_json

_CARD_BYTES = 65536
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---", re.DOTALL)
_PIPELINE_TAG = re.compile(r"^pipeline_tag:\s*['\"]?([\w-]+)", re.MULTILINE)

# The hub's names for tasks that have another one here.
_BY_TAG = {
    "image-text-to-text": "vlm",
    "visual-question-answering": "vlm",
    "automatic-speech-recognition": "asr",
    "video-text-to-text": "video-analysis",
    "video-classification": "video-analysis",
    "document-question-answering": "document-analysis",
    "feature-extraction": "embeddings",
    "sentence-similarity": "embeddings",
}
# Captions or text from pictures, anything or nothing: the architecture knows better.
_VAGUE_TAGS = ("image-to-text", "any-to-any", "other", "text2text-generation")

_BY_ARCHITECTURE = tuple(
    (re.compile(pattern), task)
    for pattern, task in (
        # Before what they are made of: DonutSwin is no Donut.
        (r"ForImageClassification(WithTeacher|Learned|Fourier|ConvProcessing)?$", "image-classification"),
        (r"TrOCR|VisionEncoderDecoder|Donut|Nougat|(?i:ocr)", "ocr"),
        (r"LayoutLM.*ForQuestionAnswering|ForDocumentQuestionAnswering$|^Pix2Struct", "document-analysis"),
        (r"Video.*For(ConditionalGeneration|CausalLM)$|ForVideoClassification$", "video-analysis"),
        (
            r"ForAudioClassification$|^(Wav2Vec2|Hubert|WavLM|UniSpeech|SEW|Data2VecAudio).*ForSeq",
            "audio-classification",
        ),
        (
            r"^(Whisper|Speech2Text|Moonshine|SpeechT5ForSpeechToText).*|ForSpeechSeq2Seq$|ForCTC$|ForRNNT$|ForTDT$",
            "asr",
        ),
        (r"ForTextToWaveform$|ForTextToSpectrogram$|ForTextToSpeech$|^Vits|^Bark", "text-to-speech"),
        (r"ForImageTextToText$|ForVision2Seq$|^Llava|VLForConditionalGeneration$|^Blip|^Florence", "vlm"),
        (r"ForCausalLM$|LMHeadModel$", "text-generation"),
        (r"ForObjectDetection$", "object-detection"),
        (r"For(Semantic|Instance|Universal|Image)Segmentation$", "image-segmentation"),
        (r"ForDepthEstimation$", "depth-estimation"),
        (r"ForSequenceClassification$", "text-classification"),
        (r"ForTokenClassification$", "token-classification"),
        (r"ForQuestionAnswering$", "question-answering"),
        (r"ForMaskedLM$", "fill-mask"),
        (r"ForTimeSeriesPrediction$|ModelForPrediction$|^(Informer|Autoformer|PatchTS).*ForPrediction$", "forecasting"),
        (r"^(StableDiffusion|Flux|Sana|PixArt).*Pipeline$", "text-to-image"),
        (r"Model$", "embeddings"),
    )
)


def architecture_of(folder: Path) -> str | None:
    """Returns the architecture that the folder's configuration names first; None without one."""
    config = read_json(folder / "config.json")
    names = config.get("architectures")
    if isinstance(names, list) and names:
        return str(names[0])
    other = config.get("architecture") or read_json(folder / "model_index.json").get("_class_name")
    return other if isinstance(other, str) else None


def guess_task(folder: Path) -> str | None:
    """Returns the task that a model is probably for, under its name on this platform; None where nothing tells."""
    if (folder / "modules.json").is_file() or (folder / "config_sentence_transformers.json").is_file():
        return "embeddings"
    architecture = architecture_of(folder)
    by_architecture = _task_of(architecture, read_json(folder / "config.json"))
    tag = _pipeline_tag(folder / "README.md")
    if by_architecture == "ocr" or tag is None or tag in _VAGUE_TAGS:
        return by_architecture or _task_of_files(folder)
    return _BY_TAG.get(tag, tag)


def _task_of(architecture: str | None, config: Mapping[str, Any]) -> str | None:
    if architecture is None:
        return None
    if "pretrained_cfg" in config:  # timm
        return "image-classification"
    found = next((task for pattern, task in _BY_ARCHITECTURE if pattern.search(architecture)), None)
    if found in (None, "text-generation"):
        # The same endings serve models that see or hear.
        if "vision_config" in config:
            return "vlm"
        if "audio_config" in config:
            return "asr"
    return found


def _task_of_files(folder: Path) -> str | None:
    return "text-generation" if any(folder.glob("*.gguf")) else None


def _pipeline_tag(card: Path) -> str | None:
    try:
        with open(card, encoding="utf-8", errors="replace") as file:
            front = _FRONT_MATTER.match(file.read(_CARD_BYTES))
    except OSError:
        return None
    found = _PIPELINE_TAG.search(front[1]) if front else None
    return found[1] if found else None
