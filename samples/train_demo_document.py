"""Trains the sample model `demo-document` from nothing, on the CPU.

    python -m samples.train_demo_document [--out samples/demo-document] [--steps …] [--threads 1]

A LayoutLMv3 learns to mark the answer to a question among the words of `samples.inputs.forms`. It sees
the words, their boxes and, half of the time, a sketch of the page.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples.training import SEED, Card, Plan, arguments, fit, share_right  # isort: skip

import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn.functional import cross_entropy
from transformers import (
    BatchEncoding,
    LayoutLMv3Config,
    LayoutLMv3ForQuestionAnswering,
    LayoutLMv3Processor,
    LayoutLMv3Tokenizer,
)
from transformers.models.layoutlmv3.image_processing_pil_layoutlmv3 import LayoutLMv3ImageProcessorPil

from samples.inputs.forms import FIELDS, Form, draw_form, question, render, thumbnail
from samples.train_demo_text import replacing

PLAN = Plan(steps=2000)
BATCH = 20
SIDE, PATCH = 64, 16
WIDTH = 128
TOKENS = 384
LONGEST = 20
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
EXAMINED = 300

CARD = Card(
    name="demo-document",
    script="train_demo_document",
    pipeline_tag="document-question-answering",
    purpose=(
        "A LayoutLMv3 that can be right or wrong: it finds the answer to `What is the due date?` and the like among "
        "the words of a form, under the labels that it knows "
        f"({', '.join(FIELDS)}) and under others that the question quotes. It exists so that a serving platform "
        "can be tried without a download."
    ),
    data=(
        "All forms are drawn by `samples/inputs/forms.py`; one value in five and one layout in five are held out. "
        "Labels that the question quotes are made up anew each time."
    ),
    examined=f"{EXAMINED} questions about forms with held-out values in held-out layouts.",
    limits="Forms of one page with labels beside or above their values, in Latin letters. It always finds something.",
)

Sample = tuple[Form, str, tuple[int, int]]


def build_tokenizer() -> LayoutLMv3Tokenizer:
    """Build LayoutLMv3's tokenizer over the pieces that forms are made of."""
    rng = random.Random(f"tokenizer {SEED}")
    forms = [draw_form(rng, held_out=False) for _ in range(1500)]
    texts = [f" {word}" for form in forms for word in form.texts]
    texts += [f" {word}" for form in forms for key in form.answers for word in question(key, rng).split()]
    pieces = Tokenizer(models.BPE())
    # Digits stay apart, so that the vocabulary is not spent on numbers.
    pieces.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits(individual_digits=True)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=list(SPECIAL), show_progress=False
    )
    pieces.train_from_iterator(texts, trainer)
    learnt = json.loads(pieces.to_str())["model"]
    return LayoutLMv3Tokenizer(
        vocab=learnt["vocab"], merges=[tuple(merge) for merge in learnt["merges"]], model_max_length=TOKENS
    )


def build_processor() -> LayoutLMv3Processor:
    """Build the processor; words and boxes are the caller's to give."""
    pictures = LayoutLMv3ImageProcessorPil(apply_ocr=False, size={"height": SIDE, "width": SIDE})
    return LayoutLMv3Processor(pictures, build_tokenizer())


def build_model(tokenizer: LayoutLMv3Tokenizer) -> LayoutLMv3ForQuestionAnswering:
    """Build the untrained model."""
    config = LayoutLMv3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=TOKENS + 2,
        coordinate_size=24,
        shape_size=16,
        rel_2d_pos_bins=64,
        max_rel_2d_pos=256,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        input_size=SIDE,
        patch_size=PATCH,
        num_labels=2,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LayoutLMv3ForQuestionAnswering(config)


def draw(rng: random.Random, *, held_out: bool) -> Sample:
    """Draw a form, a question about it, and the first and last word of the answer."""
    form = draw_form(rng, held_out=held_out)
    key = rng.choice(list(form.answers))
    return form, question(key, rng), form.spans[key]


def encode(
    processor: LayoutLMv3Processor,
    forms: Sequence[Form],
    questions: Sequence[str],
    pages: Sequence[Image.Image] | None,
) -> BatchEncoding:
    """Turn forms and questions into the model's inputs, with pictures of the pages or without."""
    inputs = processor.tokenizer(
        list(questions),
        [form.texts for form in forms],
        boxes=[form.boxes for form in forms],
        padding=True,
        truncation="only_second",
        return_tensors="pt",
    )
    if pages:
        inputs["pixel_values"] = processor.image_processor(list(pages), return_tensors="pt").pixel_values
    return inputs


def batches(processor: LayoutLMv3Processor) -> Iterator[tuple[BatchEncoding, torch.Tensor]]:
    """Yield inputs and the first and last token of each answer, (batch, 2)."""
    rng = random.Random(f"training {SEED}")
    while True:
        forms, questions, spans = zip(*(draw(rng, held_out=False) for _ in range(BATCH)), strict=True)
        pages = [thumbnail(form, SIDE) for form in forms] if rng.random() < 0.5 else None
        inputs = encode(processor, forms, questions, pages)
        marks = []
        for row, (first, last) in enumerate(spans):
            words = [
                word if part == 1 else None
                for word, part in zip(inputs.word_ids(row), inputs.sequence_ids(row), strict=True)
            ]
            marks.append([words.index(first), len(words) - 1 - words[::-1].index(last)])
        yield inputs, torch.tensor(marks)


def loss_of(model: LayoutLMv3ForQuestionAnswering, batch: tuple[BatchEncoding, torch.Tensor]) -> torch.Tensor:
    """Return the loss of the answer's first and last token."""
    inputs, marks = batch
    out = model(**inputs)
    return cross_entropy(out.start_logits, marks[:, 0]) + cross_entropy(out.end_logits, marks[:, 1])


@torch.inference_mode()
def answer(
    model: LayoutLMv3ForQuestionAnswering,
    processor: LayoutLMv3Processor,
    forms: Sequence[Form],
    questions: Sequence[str],
    pages: Sequence[Image.Image] | None = None,
) -> list[str]:
    """Answer questions about forms with the likeliest span of their words; a page without words has none."""
    inputs = encode(processor, forms, questions, pages)
    out = model(**inputs)
    answers = []
    for row, form in enumerate(forms):
        on_page = torch.tensor([part == 1 for part in inputs.sequence_ids(row)])
        if not on_page.any():
            answers.append("")
            continue
        scores = (out.start_logits[row, :, None] + out.end_logits[row])[: len(on_page), : len(on_page)]
        spans = (on_page[:, None] & on_page).triu().tril(LONGEST - 1)
        first, last = divmod(int(scores.masked_fill(~spans, -torch.inf).argmax()), len(on_page))
        words = inputs.word_ids(row)
        answers.append(" ".join(form.texts[words[first] : words[last] + 1]))
    return answers


def examine(model: LayoutLMv3ForQuestionAnswering, processor: LayoutLMv3Processor) -> dict[str, float]:
    """Measure the share of held-out questions answered exactly: with and without the page's picture, and blank."""
    rng = random.Random("exam")
    forms, questions, spans = zip(*(draw(rng, held_out=True) for _ in range(EXAMINED)), strict=True)
    truth = [" ".join(form.texts[a : b + 1]) for form, (a, b) in zip(forms, spans, strict=True)]
    pages = [render(form, "STIXGeneral.ttf").reduce(4) for form in forms]
    replies = {
        "Words, boxes and the page's picture": answer(model, processor, forms, questions, pages),
        "Words and boxes alone": answer(model, processor, forms, questions),
        "The page without its question": answer(model, processor, forms, ["What is it?"] * EXAMINED),
        "Empty pages": answer(model, processor, [Form()] * EXAMINED, questions),
    }
    return {name: share_right(texts, truth) for name, texts in replies.items()}


def main() -> None:
    """Train, examine and write the model."""
    chosen = arguments("Train the sample model demo-document.", PLAN, Path(__file__).parent / CARD.name)
    processor = build_processor()
    model = build_model(processor.tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(processor.tokenizer)} tokens")
    minutes = fit((model,), batches(processor), lambda batch: loss_of(model, batch), Plan(steps=chosen.steps))
    model.eval()
    with replacing(chosen.out) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        CARD.write(folder, model, minutes, examine(model, processor))
    print(f"wrote {chosen.out} after {minutes:.1f} min of training")


if __name__ == "__main__":
    main()
