"""Rows for text-generation: every causal and every encoder-decoder class of the library, from its default config."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoTokenizer
from transformers.models.auto import modeling_auto

from tests.architectures import shrinking, tokens, weights
from tests.architectures.case import GREEDY, Case, Data, NotTried, Outcome
from tests.architectures.text_configs import LEFT_OUT, OVERRIDES, OWN_TYPES, QUICK
from tests.architectures.tokenizers_by_type import size_of, tokenizer_for

_PROMPTS = ("Seven ships sail north", "Eight ships sail north")
_TEXT_PARTS = ("text_config", "encoder", "decoder")


def _built(model_type: str, architecture: str, folder: Path) -> None:
    tokenizer = tokenizer_for(model_type)
    config = text_config(model_type, architecture, tokenizer)
    weights.seeded()
    model = getattr(transformers, architecture)(config).eval()
    weights.enliven(model)
    weights.hush(model, tokenizer.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def text_config(model_type: str, architecture: str, tokenizer: Any) -> Any:
    """Returns a tiny config whose tokens are the tokenizer's."""
    kind = getattr(transformers, architecture).config_class or CONFIG_MAPPING[model_type]
    ids = {
        "vocab_size": size_of(tokenizer),
        "decoder_vocab_size": size_of(tokenizer),
        "vocab_size_per_layer_input": size_of(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id,
    }
    own = OVERRIDES.get(model_type, {})
    parts = _text_parts(kind(), ids, own)
    decoding = _decoding(model_type, architecture, kind(), ids)
    return shrinking.tiny(kind, {**_known(kind(), ids), **decoding, **own, **parts})


def _text_parts(default: Any, ids: Mapping[str, Any], own: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the tokens for those parts of a config that are about text, however deep they lie."""
    parts = {name: getattr(default, name, None) for name in default.sub_configs if name in _TEXT_PARTS}
    return {
        name: {**_known(part, ids), **own.get(name, {}), **_text_parts(part, ids, own.get(name, {}))}
        for name, part in parts.items()
        if part is not None
    }


def _known(default: Any, ids: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in ids.items() if hasattr(default, name)}


def _decoding(model_type: str, architecture: str, default: Any, ids: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what makes a decoder of a config: the tokens that its answers begin and, where forced, end with."""
    if is_causal(model_type, architecture):
        return {"is_decoder": True} if hasattr(default, "is_decoder") else {}
    if not default.is_encoder_decoder:
        return {}
    first, last = (getattr(default, name, None) for name in ("decoder_start_token_id", "forced_eos_token_id"))
    return {
        "decoder_start_token_id": ids[
            "eos_token_id" if first is not None and first == default.eos_token_id else "pad_token_id"
        ],
        **({"forced_eos_token_id": ids["eos_token_id"]} if last is not None else {}),
    }


def is_causal(model_type: str, architecture: str) -> bool:
    """Whether a class is one that continues its prompt."""
    return modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model_type) == architecture


def _asked(architecture: str, folder: Path, data: Data) -> Outcome:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, architecture).from_pretrained(folder).eval()
    encoded = tokenizer(data["inputs"], return_tensors="pt")
    inputs = {name: encoded[name] for name in ("input_ids", "attention_mask")}
    skip = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    torch.manual_seed(0)
    return tokens.generated(model, tokenizer, inputs, skip=skip)


def _case(model_type: str, architecture: str) -> Case:
    return Case(
        architecture=architecture,
        task="text-generation",
        build=partial(_built, model_type, architecture),
        data=lambda: {"inputs": _PROMPTS[0]},
        changes={"prompt": lambda data: {**data, "inputs": _PROMPTS[1]}},
        direct=partial(_asked, architecture),
        options=GREEDY,
        quick=architecture in QUICK,
    )


def _types() -> Mapping[str, str]:
    """Returns architecture → model type; of several types the one that the class was written for."""
    mapped = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    found = {architecture: model_type for names in mapped for model_type, architecture in reversed(names.items())}
    return {**found, **{architecture: kind for architecture, kind in OWN_TYPES.items() if architecture in found}}


CASES = [
    _case(model_type, architecture) for architecture, model_type in _types().items() if architecture not in LEFT_OUT
]
NOT_TRIED: NotTried = {("text-generation", architecture): reason for architecture, reason in LEFT_OUT.items()}
