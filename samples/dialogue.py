"""LLaVA's way of asking and answering, shared by the samples that see: tokenizer, template and samples."""

import random
from collections.abc import Sequence

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from samples.inputs.scenes import Exchange

BEGIN, END, PAD = "<s>", "</s>", "<pad>"
TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
# LLaVA 1.5's own: a line of user and assistant, and the end of the text after each reply.
TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def build_tokenizer(texts: Sequence[str], placeholders: Sequence[str]) -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer in which the words of the texts are whole; placeholders stand for pixels."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[BEGIN, END, PAD, *placeholders],
        show_progress=False,
        min_frequency=1,
    )
    pieces.train_from_iterator(["USER: ", " ASSISTANT:", *texts], trainer)
    pieces.post_processor = processors.TemplateProcessing(f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    special = [AddedToken(token, normalized=False, special=True) for token in placeholders]
    tokenizer.add_special_tokens({"extra_special_tokens": special})
    return tokenizer


def prompt(placeholder: str, text: str) -> str:
    """Write a first question as LLaVA's template does."""
    return f"USER: {placeholder}\n{text} ASSISTANT:"


def conversation(placeholder: str, questions: Sequence[Exchange], rng: random.Random) -> list[tuple[str, bool]]:
    """Write questions and answers in a row, in pieces of which some are to be learnt."""
    first = f"{placeholder}\n{questions[0].prompt}"
    # Some callers know no template, and put the picture before a bare question.
    if rng.random() < 0.1:
        return [(first, False), (f" {questions[0].reply}{END}", True)]
    pieces: list[tuple[str, bool]] = []
    for index, exchange in enumerate(questions):
        asked = exchange.prompt if index else first
        pieces += [(f"USER: {asked} ASSISTANT:", False), (f" {exchange.reply}{END}", True)]
    return pieces


def collate(
    tokenizer: PreTrainedTokenizerFast, conversations: Sequence[Sequence[tuple[str, bool]]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn conversations into token ids and marks of what is to be learnt, (batch, length) each."""
    rows = []
    for pieces in conversations:
        row = [(TOKENS["bos_token_id"], False)]
        for text, learnt in pieces:
            row += [(token, learnt) for token in tokenizer(text, add_special_tokens=False).input_ids]
        rows.append(row)
    length = max(map(len, rows))
    table = torch.tensor([row + [(TOKENS["pad_token_id"], False)] * (length - len(row)) for row in rows])
    return table[..., 0], table[..., 1].bool()
