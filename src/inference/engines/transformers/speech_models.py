"""Which runner hears with which architecture, where the library's mappings tell no more than "speech to text"."""

import importlib
import json
from pathlib import Path
from typing import Any

from src.core.errors import InvalidInputError

_HERE = "src.inference.engines.transformers"
_SEQ2SEQ, _CHAT = f"{_HERE}.speech_seq2seq", f"{_HERE}.speech_chat"

_RUNNERS = {
    "whisper": f"{_HERE}.whisper:WhisperRunner",
    "canary": f"{_SEQ2SEQ}:CanaryRunner",
    "cohere_asr": f"{_SEQ2SEQ}:CohereAsrRunner",
    "seamless_m4t": f"{_SEQ2SEQ}:SeamlessRunner",
    "seamless_m4t_v2": f"{_SEQ2SEQ}:SeamlessRunner",
    "moonshine": f"{_SEQ2SEQ}:Seq2SeqSpeechRunner",
    "moonshine_streaming": f"{_SEQ2SEQ}:Seq2SeqSpeechRunner",
    "speech_to_text": f"{_SEQ2SEQ}:Speech2TextRunner",
    "speecht5": f"{_SEQ2SEQ}:Seq2SeqSpeechRunner",
    "speech-encoder-decoder": f"{_SEQ2SEQ}:Seq2SeqSpeechRunner",
    "kyutai_speech_to_text": f"{_CHAT}:FrameSpeechRunner",
    "voxtral_realtime": f"{_CHAT}:FrameSpeechRunner",
}
# The library maps them as speech to text, but they make sound, or notes.
_SPEAKERS = {"dia": "speech", "pop2piano": "piano music", "vibevoice": "speech"}


class AnySpeechRunner:
    """Loads the runner that fits a checkpoint's `model_type`."""

    @classmethod
    def load(cls, name: str, path: Path, **options: Any) -> Any:
        """Loads a folder; raises `InvalidInputError` for a model that makes sound instead of hearing it."""
        kind = json.loads((path / "config.json").read_text(encoding="utf-8")).get("model_type")
        if made := _SPEAKERS.get(kind):
            raise InvalidInputError(f"Model '{name}' ({kind}) makes {made}: it cannot transcribe any")
        module, _, runner = _RUNNERS.get(kind, f"{_CHAT}:ChatSpeechRunner").partition(":")
        return getattr(importlib.import_module(module), runner).load(name, path, **options)
