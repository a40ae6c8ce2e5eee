"""Rows for audio-classification: every class that the library maps."""

from functools import partial
from pathlib import Path
from typing import Any

from transformers import (
    ASTFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from tests.architectures.audio_cases import LABELS, classified, heard_case, saved, tiny_model
from tests.architectures.case import NotTried
from tests.architectures.waveform_configs import MELS, WAVEFORM

_LABELLED = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: place for place, label in enumerate(LABELS)},
    "classifier_proj_size": 32,
}
_BY_WAVEFORM = {
    "Data2VecAudioForSequenceClassification": "data2vec-audio",
    "HubertForSequenceClassification": "hubert",
    "SEWDForSequenceClassification": "sew-d",
    "SEWForSequenceClassification": "sew",
    "UniSpeechForSequenceClassification": "unispeech",
    "UniSpeechSatForSequenceClassification": "unispeech-sat",
    "Wav2Vec2ConformerForSequenceClassification": "wav2vec2-conformer",
    "Wav2Vec2ForSequenceClassification": "wav2vec2",
    "WavLMForSequenceClassification": "wavlm",
}


def _waveform(architecture: str, model_type: str, folder: Path) -> None:
    model = tiny_model(architecture, model_type, {**WAVEFORM[model_type], **_LABELLED})
    saved(folder, model, Wav2Vec2FeatureExtractor(return_attention_mask=True))


def _whisper(architecture: str, folder: Path) -> None:
    values = {"num_mel_bins": MELS, "max_source_positions": 100, "vocab_size": 64, "pad_token_id": 0}
    model = tiny_model(architecture, "whisper", {**values, **_LABELLED, "decoder_start_token_id": 1})
    saved(folder, model, WhisperFeatureExtractor(feature_size=MELS, chunk_length=2))


def _spectrogram(architecture: str, folder: Path) -> None:
    values = {"max_length": 128, "num_mel_bins": 32, "patch_size": 16, "time_stride": 16, "frequency_stride": 16}
    model = tiny_model(architecture, "audio-spectrogram-transformer", {**values, **_LABELLED})
    saved(folder, model, ASTFeatureExtractor(num_mel_bins=32, max_length=128))


def _bert(architecture: str, folder: Path) -> None:
    values = {**WAVEFORM["wav2vec2-bert"], **_LABELLED}
    model = tiny_model(architecture, "wav2vec2-bert", values)
    saved(folder, model, SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80))


def _case(architecture: str, build: Any, *, quick: bool = False) -> Any:
    return heard_case(
        architecture, build, partial(classified, architecture), task="audio-classification", options={}, quick=quick
    )


CASES = [
    *(_case(name, partial(_waveform, name, kind)) for name, kind in _BY_WAVEFORM.items()),
    _case("ASTForAudioClassification", partial(_spectrogram, "ASTForAudioClassification"), quick=True),
    _case("Wav2Vec2BertForSequenceClassification", partial(_bert, "Wav2Vec2BertForSequenceClassification")),
    _case("WhisperForAudioClassification", partial(_whisper, "WhisperForAudioClassification")),
]
NOT_TRIED: NotTried = {}
