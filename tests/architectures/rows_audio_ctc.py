"""Rows for asr by CTC: the models that hear waveforms, and those that hear spectrograms."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoProcessor,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertProcessor,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

from tests.architectures import tokens
from tests.architectures.audio_cases import first_of_runs, heard_case, letters_tokenizer, saved, tiny_model
from tests.architectures.case import Data, NotTried, Outcome
from tests.architectures.waveform_configs import MELS, WAVEFORM

_SAID = {"logprobs": True}
_BY_WAVEFORM = {
    "Data2VecAudioForCTC": "data2vec-audio",
    "HubertForCTC": "hubert",
    "SEWDForCTC": "sew-d",
    "SEWForCTC": "sew",
    "UniSpeechForCTC": "unispeech",
    "UniSpeechSatForCTC": "unispeech-sat",
    "Wav2Vec2ConformerForCTC": "wav2vec2-conformer",
    "Wav2Vec2ForCTC": "wav2vec2",
    "WavLMForCTC": "wavlm",
}


def _waveform(architecture: str, model_type: str, folder: Path) -> None:
    tokenizer = letters_tokenizer()
    model = tiny_model(architecture, model_type, {**WAVEFORM[model_type], "vocab_size": len(tokenizer)})
    saved(folder, model, Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer))


def _bert(architecture: str, folder: Path) -> None:
    tokenizer = letters_tokenizer()
    model = tiny_model(architecture, "wav2vec2-bert", {**WAVEFORM["wav2vec2-bert"], "vocab_size": len(tokenizer)})
    extractor = SeamlessM4TFeatureExtractor(feature_size=80, num_mel_bins=80)
    saved(folder, model, Wav2Vec2BertProcessor(extractor, tokenizer))


def _conformer(architecture: str, model_type: str, processor: str, extractor: str, folder: Path) -> None:
    """Builds a model that hears spectrograms; its blank is the token to pad with."""
    tokenizer = tokens.fast()
    blank = tokenizer.pad_token_id
    encoder = {
        "vocab_size": len(tokenizer),
        "num_mel_bins": MELS,
        "subsampling_conv_channels": 16,
        "max_position_embeddings": 256,
    }
    values = {"vocab_size": len(tokenizer), "pad_token_id": blank, "encoder_config": encoder}
    model = tiny_model(architecture, model_type, values)
    saved(
        folder, model, getattr(transformers, processor)(getattr(transformers, extractor)(feature_size=MELS), tokenizer)
    )


def _asked(architecture: str, folder: Path, data: Data) -> Outcome:
    processor = AutoProcessor.from_pretrained(folder)
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    inputs = processor(data["audio"].samples, sampling_rate=data["audio"].rate, return_tensors="pt")
    with torch.inference_mode():
        frames = model(**inputs).logits[0]
    # What frames of padding at the end say is no part of the answer.
    if "attention_mask" in inputs and hasattr(model, "_get_output_attention_mask"):
        frames = frames[model._get_output_attention_mask(inputs["attention_mask"], frames.shape[0])[0].bool()]
    ids, values = first_of_runs(frames, processor.tokenizer.pad_token_id)
    return Outcome(processor.tokenizer.decode(ids, group_tokens=False).strip(), values)


def _case(architecture: str, build: Callable[[Path], None], *, quick: bool = False) -> Any:
    return heard_case(architecture, build, partial(_asked, architecture), options=_SAID, quick=quick)


CASES = [
    *(
        _case(name, partial(_waveform, name, kind), quick=name == "Wav2Vec2ForCTC")
        for name, kind in _BY_WAVEFORM.items()
    ),
    _case("Wav2Vec2BertForCTC", partial(_bert, "Wav2Vec2BertForCTC")),
    _case(
        "ParakeetForCTC",
        partial(_conformer, "ParakeetForCTC", "parakeet_ctc", "ParakeetProcessor", "ParakeetFeatureExtractor"),
    ),
    _case("LasrForCTC", partial(_conformer, "LasrForCTC", "lasr_ctc", "LasrProcessor", "LasrFeatureExtractor")),
]
NOT_TRIED: NotTried = {
    ("asr", "GraniteSpeech5ForCTC"): "its feature extractor needs the package torchaudio, which is not installed here"
}
