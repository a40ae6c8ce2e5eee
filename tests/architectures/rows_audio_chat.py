"""Rows for asr by language models that hear: asked by their processor's own request, or by a message."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoProcessor

from tests.architectures import tokens, weights
from tests.architectures.audio_cases import heard_case, saved, tiny_model
from tests.architectures.case import Data, NotTried, Outcome
from tests.architectures.tokenizers_by_type import size_of

_TEMPLATE = (
    "{%% for message in messages %%}<s>{%% if message['content'] is string %%}{{ message['content'] }}{%% else %%}"
    "{%% for part in message['content'] %%}{%% if part['type'] == 'audio' %%}%s{%% elif part['type'] == 'text' %%}"
    "{{ part['text'] }}{%% endif %%}{%% endfor %%}{%% endif %%}{%% endfor %%}"
)
_WORDS = "Transcribe the speech."


@dataclass(frozen=True)
class _Listener:
    """How to make one: `sign` is the token that stands for sound, `written` how a prompt has it."""

    model_type: str
    processor: str
    extractor: str
    sign: str
    written: str = ""
    specials: Sequence[str] = ()
    audio: Mapping[str, Any] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    requested: bool = True


_WHISPER = {"max_source_positions": 1500, "num_mel_bins": 128}
_MODELS = {
    "AudioFlamingo3ForConditionalGeneration": _Listener(
        "audioflamingo3", "AudioFlamingo3Processor", "WhisperFeatureExtractor", "<sound>", audio=_WHISPER
    ),
    "GlmAsrForConditionalGeneration": _Listener(
        "glmasr", "GlmAsrProcessor", "WhisperFeatureExtractor", "<|pad|>", audio=_WHISPER
    ),
    "MusicFlamingoForConditionalGeneration": _Listener(
        "musicflamingo",
        "MusicFlamingoProcessor",
        "WhisperFeatureExtractor",
        "<sound>",
        specials=("<|sound_bos|>", "<|sound_eos|>"),
        audio=_WHISPER,
        requested=False,
    ),
    "Qwen2AudioForConditionalGeneration": _Listener(
        "qwen2_audio",
        "Qwen2AudioProcessor",
        "WhisperFeatureExtractor",
        "<|AUDIO|>",
        written="<|audio_bos|><|AUDIO|><|audio_eos|>",
        specials=("<|audio_bos|>", "<|audio_eos|>"),
        audio=_WHISPER,
        requested=False,
    ),
    "Qwen3ASRForConditionalGeneration": _Listener(
        "qwen3_asr",
        "Qwen3ASRProcessor",
        "Qwen3ASRFeatureExtractor",
        "<|audio_pad|>",
        written="<|audio_start|><|audio_pad|><|audio_end|>",
        specials=("<|audio_start|>", "<|audio_end|>", "<asr_text>", "<timestamp>"),
        audio={"output_dim": 64, "num_mel_bins": 128, "max_source_positions": 1500},
        named={
            "audio_token": "<|audio_pad|>",
            "audio_bos_token": "<|audio_start|>",
            "audio_eos_token": "<|audio_end|>",
        },
    ),
}


def _built(architecture: str, folder: Path) -> None:
    made = _MODELS[architecture]
    template = _TEMPLATE % (made.written or made.sign)
    named_tokens = {"extra_special_tokens": dict(made.named)} if made.named else {}
    tokenizer = tokens.fast([made.sign, *made.specials], **named_tokens)
    sign = tokenizer.convert_tokens_to_ids(made.sign)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    named = "audio_token_index" if made.model_type == "qwen2_audio" else "audio_token_id"
    values = {
        **ids,
        named: sign,
        "text_config": {**ids, "vocab_size": size_of(tokenizer)},
        "audio_config": dict(made.audio),
    }
    model = tiny_model(architecture, made.model_type, values)
    weights.hush(model, tokenizer.eos_token_id)
    sizes = {"feature_size": 128} if made.extractor.startswith("Whisper") else {}
    extractor = getattr(transformers, made.extractor)(**sizes)
    processor = getattr(transformers, made.processor)(extractor, tokenizer, chat_template=template)
    saved(folder, model, processor)


def _asked(architecture: str, folder: Path, data: Data) -> Outcome:
    processor = AutoProcessor.from_pretrained(folder)
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    if _MODELS[architecture].requested:
        inputs = processor.apply_transcription_request(audio=data["audio"].samples)
    else:
        parts = [{"type": "audio"}, {"type": "text", "text": _WORDS}]
        written = processor.apply_chat_template(
            [{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False
        )
        inputs = processor(text=[written], audio=[data["audio"].samples], return_tensors="pt")
    outcome = tokens.generated(model, processor.tokenizer, inputs)
    return Outcome(outcome.answer.strip(), outcome.numbers)


CASES = [heard_case(name, partial(_built, name), partial(_asked, name)) for name in _MODELS]
_MISTRAL = "its processor needs the package mistral-common, which is not installed here"
_TORCHAUDIO = "its feature extractor needs the package torchaudio, which is not installed here"
NOT_TRIED: NotTried = {
    ("asr", "FunAsrNanoForConditionalGeneration"): _TORCHAUDIO,
    ("asr", "GraniteSpeechForConditionalGeneration"): _TORCHAUDIO,
    ("asr", "GraniteSpeechPlusForConditionalGeneration"): _TORCHAUDIO,
    ("asr", "VoxtralForConditionalGeneration"): _MISTRAL,
    ("asr", "VoxtralRealtimeForConditionalGeneration"): _MISTRAL,
}
