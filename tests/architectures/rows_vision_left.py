"""Why architectures that see have no row for some task, where more is to be said than that."""

from tests.architectures import (
    rows_ocr_asked,
    rows_vision_blip,
    rows_vision_idefics,
    rows_vision_large,
    rows_vision_llava,
    rows_vision_more,
    rows_vision_qwen,
    rows_vision_rest,
    rows_vision_tiles,
)
from tests.architectures.case import Case

_TALKING = (
    rows_ocr_asked,
    rows_vision_blip,
    rows_vision_idefics,
    rows_vision_large,
    rows_vision_llava,
    rows_vision_more,
    rows_vision_qwen,
    rows_vision_rest,
    rows_vision_tiles,
)
_TASKS = ("vlm", "ocr", "video-analysis", "document-analysis")
_NOT_BUILT = {
    "Gemma3nForConditionalGeneration": "its vision tower is MobileNetV5 of timm, which is not installed",
    "FastVlmForConditionalGeneration": "its vision tower is FastViT of timm, which is not installed",
    "PerceptionLMForConditionalGeneration": "its vision tower is a model of timm, which is not installed",
    "EvollaForProteinText2Text": "it reads proteins, not pictures",
    "PI0ForConditionalGeneration": "it moves robots: its answer is no text",
    "DiffusionGemmaForBlockDiffusion": "it writes whole blocks at once: there is no log-probability of each token",
}
"""What no row can be made of, or none yet."""
_HEARING = (
    "FunAsrNanoForConditionalGeneration",
    "GlmAsrForConditionalGeneration",
    "GraniteSpeechForConditionalGeneration",
    "GraniteSpeechPlusForConditionalGeneration",
    "KyutaiSpeechToTextForConditionalGeneration",
    "MossTranscribeDiarizeForConditionalGeneration",
    "Nemotron3_5TranscribeForConditionalGeneration",
    "Qwen2AudioForConditionalGeneration",
    "Qwen3ASRForConditionalGeneration",
    "VibeVoiceAsrForConditionalGeneration",
    "VoxtralForConditionalGeneration",
    "VoxtralRealtimeForConditionalGeneration",
)
"""What the library counts among those that take several kinds of input, and that has no eyes."""


def _asked_elsewhere() -> dict[tuple[str, str], str]:
    """Returns (task, architecture) → where the same runner has a row for the architecture."""
    shown: dict[str, str] = {}
    for case in _cases():
        shown.setdefault(case.architecture, case.task)
    reason = "no row of its own: what asks it is the code of task {}, where it has one"
    return {(task, name): reason.format(where) for name, where in shown.items() for task in _TASKS if task != where}


def _cases() -> list[Case]:
    return sorted((case for module in _TALKING for case in module.CASES), key=lambda case: case.task != "vlm")


CASES: list[Case] = []
NOT_TRIED = _asked_elsewhere() | {
    (task, name): reason
    for name, reason in (_NOT_BUILT | dict.fromkeys(_HEARING, "it hears and does not see")).items()
    for task in _TASKS
}
