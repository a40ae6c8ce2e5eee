"""Rows for asr by transducers: RNN-T and TDT."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoProcessor, GenerationConfig

from tests.architectures.audio_cases import heard_case, saved, tiny_model
from tests.architectures.case import Data, NotTried, Outcome
from tests.architectures.tokenizers_by_type import size_of, tokenizer_for
from tests.architectures.waveform_configs import MELS

_BLANK = "<blank>"
_MODELS = {
    "ParakeetForRNNT": ("parakeet_rnnt", "ParakeetProcessor", "ParakeetFeatureExtractor", {"decoder_type": "rnnt"}),
    "ParakeetForTDT": ("parakeet_tdt", "ParakeetProcessor", "ParakeetFeatureExtractor", {"decoder_type": "tdt"}),
    "NemotronAsrStreamingForRNNT": (
        "nemotron_asr_streaming",
        "NemotronAsrStreamingProcessor",
        "NemotronAsrStreamingFeatureExtractor",
        {},
    ),
    "Nemotron3_5AsrForRNNT": (
        "nemotron3_5_asr",
        "Nemotron3_5AsrProcessor",
        "NemotronAsrStreamingFeatureExtractor",
        {},
    ),
}


def _built(architecture: str, folder: Path) -> None:
    model_type, processor, extractor, settings = _MODELS[architecture]
    tokenizer = tokenizer_for(model_type)
    tokenizer.add_special_tokens({"additional_special_tokens": [_BLANK]})
    encoder = {"num_mel_bins": MELS, "subsampling_conv_channels": 16, "max_position_embeddings": 256}
    values = {
        "vocab_size": size_of(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "blank_token_id": tokenizer.convert_tokens_to_ids(_BLANK),
        "decoder_hidden_size": 32,
        "max_symbols_per_step": 2,
        "encoder_config": encoder,
    }
    if model_type == "nemotron3_5_asr":
        values["prompt_intermediate_size"] = 64
    model = tiny_model(architecture, model_type, values)
    begin = {"decoder_start_token_id": values["blank_token_id"], "pad_token_id": values["pad_token_id"]}
    model.generation_config = GenerationConfig(**begin)
    hearing = getattr(transformers, extractor)(feature_size=MELS)
    saved(folder, model, getattr(transformers, processor)(hearing, tokenizer, blank_token=_BLANK, **settings))


def _asked(architecture: str, folder: Path, data: Data) -> Outcome:
    """Decodes greedily; the numbers are the log-probabilities of the emitted tokens among tokens."""
    heard = data["audio"]
    processor = AutoProcessor.from_pretrained(folder)
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    inputs = processor(audio=heard.samples, sampling_rate=heard.rate, return_tensors="pt")
    steps = list[torch.Tensor]()
    model.joint.register_forward_hook(lambda module, given, joined: steps.append(joined.reshape(-1)))
    with torch.inference_mode():
        output = model.generate(**inputs, return_dict_in_generate=True)
    likelihoods = [step[: model.config.vocab_size].float().log_softmax(-1).max(-1) for step in steps]
    numbers = [float(best.values) for best in likelihoods if int(best.indices) != model.config.blank_token_id]
    text: Any = processor.decode(output.sequences, skip_special_tokens=True)
    return Outcome((text if isinstance(text, str) else text[0]).strip(), numbers)


CASES = [heard_case(name, partial(_built, name), partial(_asked, name), options={"logprobs": True}) for name in _MODELS]
NOT_TRIED: NotTried = {}
