"""Tokenizers trained here, with the special tokens that an architecture needs, and log-probabilities."""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.architectures.case import Outcome

BASE_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
"""The first special tokens of every tokenizer: ids 0 to 3."""
TEXTS = (
    "The quick brown fox jumps over the lazy dog while seven ships sail north.",
    "A red square above a blue circle, and three green stars beside them.",
    "What is the total of invoice number 4711? It is 96.50 and due in March.",
    "Every morning the old clock on the tower strikes eight and nobody listens.",
)


def trained(specials: Sequence[str] = (), size: int = 384) -> Tokenizer:
    """Returns a byte-level BPE tokenizer of at most `size` tokens: `BASE_TOKENS`, `specials`, bytes, merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*BASE_TOKENS, *specials],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    return tokenizer


def fast(
    specials: Sequence[str] = (), *, size: int = 384, template: str | None = None, **kwargs: Any
) -> PreTrainedTokenizerFast:
    """Returns a tokenizer for a model folder; `template` is its chat template, `kwargs` go to its class."""
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trained(specials, size),
        **{**named, "model_max_length": 2048, "additional_special_tokens": list(specials), **kwargs},
    )
    tokenizer.chat_template = template
    return tokenizer


def generated(model: Any, tokenizer: Any, inputs: Any, *, skip: int | None = None, **options: Any) -> Outcome:
    """Asks a model's own `generate` and reads its answer after the first `skip` tokens that it gives back.

    Without `skip` as many tokens are read as there were steps.

    The numbers are the log-probabilities of the tokens, special ones included. Greedy, 8 new tokens, unless told.
    """
    settings = {"max_new_tokens": 8, "do_sample": False, **options}
    with torch.inference_mode():
        output = model.generate(**inputs, **settings, return_dict_in_generate=True, output_logits=True)
    skip = output.sequences.shape[1] - len(output.logits) if skip is None else skip
    ids = output.sequences[0, skip:]
    numbers = [float(step[0].float().log_softmax(-1)[token]) for step, token in zip(output.logits, ids, strict=True)]
    return Outcome(tokenizer.decode(ids, skip_special_tokens=True), numbers)
