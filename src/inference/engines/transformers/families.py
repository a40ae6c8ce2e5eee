"""Which architecture can do what: the classes that transformers maps to each of its Auto classes.

The table (`families.json`: class → families) is drawn from the installed library by
`python -m src.inference.engines.transformers.families`; reading it imports nothing heavy.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

_TABLE = Path(__file__).with_name("families.json")

_MAPPINGS = {
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "image-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "multimodal": "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES",
    "visual-qa": "MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING_NAMES",
    "document-qa": "MODEL_FOR_DOCUMENT_QUESTION_ANSWERING_MAPPING_NAMES",
    "text-recognition": "MODEL_FOR_TEXT_RECOGNITION_MAPPING_NAMES",
    "speech-seq2seq": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "ctc": "MODEL_FOR_CTC_MAPPING_NAMES",
    "rnnt": "MODEL_FOR_RNNT_MAPPING_NAMES",
    "tdt": "MODEL_FOR_TDT_MAPPING_NAMES",
    "audio-classification": "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES",
    "image-classification": "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "video-classification": "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES",
}
"""Family → the library's mapping from model types to classes."""

_AUDIO_TEXT = (
    "AudioFlamingo3ForConditionalGeneration",
    "GlmAsrForConditionalGeneration",
    "MossTranscribeDiarizeForConditionalGeneration",
    "MusicFlamingoForConditionalGeneration",
    "Nemotron3_5TranscribeForConditionalGeneration",
    "Qwen2AudioForConditionalGeneration",
)
"""Chat models that hear and do not see; the library maps them beside those that see, or beside translators."""

_BY_POLICIES = "ShieldGemma2ForImageClassification"
"""A chat model that is asked about policies; the library maps it beside those that have labels of their own."""

RUNNERS: dict[str, dict[str, str]] = {
    "text-generation": {
        "causal": "src.inference.engines.transformers.text_generation:CausalRunner",
        "seq2seq": "src.inference.engines.transformers.text_generation:Seq2SeqRunner",
    },
    "document-analysis": {
        "document-qa": "src.inference.engines.transformers.document_qa:SpanRunner",
        "image-text": "src.inference.engines.transformers.documents:PageRunner",
        "multimodal": "src.inference.engines.transformers.documents:PageRunner",
    },
    "vlm": {
        "image-text": "src.inference.engines.transformers.description:DescriptionRunner",
        "multimodal": "src.inference.engines.transformers.description:DescriptionRunner",
        "visual-qa": "src.inference.engines.transformers.visual_qa:QuestionRunner",
    },
    "ocr": {
        "text-recognition": "src.inference.engines.transformers.ocr:LineOcr",
        "image-text": "src.inference.engines.transformers.ocr:OcrRunner",
        "multimodal": "src.inference.engines.transformers.ocr:OcrRunner",
    },
    "asr": {
        "speech-seq2seq": "src.inference.engines.transformers.speech_models:AnySpeechRunner",
        "ctc": "src.inference.engines.transformers.ctc:CtcRunner",
        "rnnt": "src.inference.engines.transformers.transducer:RnntRunner",
        "tdt": "src.inference.engines.transformers.transducer:TdtRunner",
        "audio-text": "src.inference.engines.transformers.speech_chat:ChatSpeechRunner",
    },
    "audio-classification": {
        "audio-classification": "src.inference.engines.transformers.audio_classification:AudioClassificationRunner",
    },
    "image-classification": {
        "image-classification": "src.inference.engines.transformers.image_classification:ImageClassificationRunner",
        "image-policies": "src.inference.engines.transformers.image_classification:PolicyRunner",
    },
    "video-analysis": {
        "video-classification": "src.inference.engines.transformers.video_classification:VideoClassificationRunner",
        "image-text": "src.inference.engines.transformers.video:VideoRunner",
        "multimodal": "src.inference.engines.transformers.video:VideoRunner",
    },
}
"""Task → family → the class that loads and runs its models; the first family that an architecture has counts."""


def families(architectures: Iterable[str]) -> set[str]:
    """Returns the families of named classes."""
    table = _table()
    return {family for name in architectures for family in table.get(name, _by_name(name))}


def tasks_of(architectures: Sequence[str]) -> list[str]:
    """Returns the tasks that classes of these names can do here."""
    able = families(architectures)
    return sorted(task for task, runners in RUNNERS.items() if able & runners.keys())


def runner_for(task: str, architectures: Sequence[str]) -> str | None:
    """Returns `module:class` of what runs these architectures for a task; None where nothing does."""
    able = families(architectures)
    return next((reference for family, reference in RUNNERS.get(task, {}).items() if family in able), None)


def runner_modules(tasks: Iterable[str]) -> list[str]:
    """Returns the modules of all runners of the tasks."""
    return sorted({reference.partition(":")[0] for task in tasks for reference in RUNNERS.get(task, {}).values()})


def _by_name(name: str) -> tuple[str, ...]:
    """Returns the families of a class that the library does not map: a model with code of its own."""
    return ("causal",) if name.endswith("ForCausalLM") else ()


@cache
def _table() -> dict[str, list[str]]:
    table: dict[str, list[str]] = json.loads(_TABLE.read_text(encoding="utf-8"))
    return table


def draw() -> dict[str, list[str]]:
    """Returns the table as the installed library has it; imports it."""
    from transformers.models.auto import modeling_auto

    found: dict[str, set[str]] = {}
    for family, mapping in _MAPPINGS.items():
        for names in getattr(modeling_auto, mapping).values():
            for name in (names,) if isinstance(names, str) else names:
                found.setdefault(name, set()).add(family)
    for name, kinds in found.items():
        if name in _AUDIO_TEXT:
            kinds.add("audio-text")
        if kinds & {"audio-text", "speech-seq2seq"}:
            kinds.discard("multimodal")
    found[_BY_POLICIES] = {"image-policies"}
    return {name: sorted(found[name]) for name in sorted(found)}


if __name__ == "__main__":
    lines = (f"  {json.dumps(name)}: {json.dumps(kinds)}" for name, kinds in draw().items())
    _TABLE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
