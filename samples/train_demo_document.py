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

from samples.training import SEED, Card, Plan, arguments, fit, halve, share_right  # isort: skip

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

from samples.guide import Guide, Truth, find_truth, prime
from samples.inputs.forms import FIELDS, Form, absent_field, as_read, draw_form, question, render, thumbnail
from samples.train_demo_text import replacing

PLAN = Plan(steps=1200)
BATCH = 20
SIDE, PATCH = 64, 16
WIDTH = 128
HEADS = 4
TOKENS = 384
# The share of questions in training for what the page lacks.
ABSENT = 0.15
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
        "Labels that the question quotes are made up anew each time. `samples/guide.py` primed its weights, and "
        "showed it where the labels stand while it learnt."
    ),
    examined=f"{EXAMINED} questions about forms with held-out values in held-out layouts.",
    limits=(
        "Forms with labels beside or above their values, in Latin letters. Where a page lacks the field, the first "
        "token of all scores higher than any span."
    ),
)

Sample = tuple[Form, str, str]


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
        num_attention_heads=HEADS,
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
    """Draw a form, the field that is asked for, and a question for it."""
    form = draw_form(rng, held_out=held_out)
    key = rng.choice(list(form.answers))
    return form, key, question(key, rng)


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


def batches(processor: LayoutLMv3Processor) -> Iterator[tuple[BatchEncoding, Truth]]:
    """Yield inputs and what is true of them."""
    rng = random.Random(f"training {SEED}")
    while True:
        forms = [draw_form(rng, held_out=False) for _ in range(BATCH)]
        keys = [absent_field(form, rng) if rng.random() < ABSENT else rng.choice(list(form.answers)) for form in forms]
        questions = [question(key, rng) for key in keys]
        seen = [as_read(form, rng) if rng.random() < 0.6 else form for form in forms]
        pages = [thumbnail(form, SIDE) for form in forms] if rng.random() < 0.5 else None
        inputs = encode(processor, seen, questions, pages)
        yield inputs, find_truth(inputs, forms, keys)


def loss_of(model: LayoutLMv3ForQuestionAnswering, guide: Guide, batch: tuple[BatchEncoding, Truth]) -> torch.Tensor:
    """Return the loss of the answer's first and last token, and of where the model looked for them."""
    inputs, truth = batch
    out = model(**inputs, output_hidden_states=True, output_attentions=True)
    found = cross_entropy(out.start_logits, truth.answers[:, 0]) + cross_entropy(out.end_logits, truth.answers[:, 1])
    return found + guide(out, truth)


@torch.inference_mode()
def find(
    model: LayoutLMv3ForQuestionAnswering,
    processor: LayoutLMv3Processor,
    forms: Sequence[Form],
    questions: Sequence[str],
    pages: Sequence[Image.Image] | None = None,
) -> list[tuple[str, float]]:
    """Find the likeliest span of words, and by how much its score beats that of "nowhere on this page"."""
    inputs = encode(processor, forms, questions, pages)
    out = model(**inputs)
    answers = []
    for row, form in enumerate(forms):
        on_page = torch.tensor([part == 1 for part in inputs.sequence_ids(row)])
        if not on_page.any():
            answers.append(("", -torch.inf))
            continue
        scores = (out.start_logits[row, :, None] + out.end_logits[row])[: len(on_page), : len(on_page)]
        spans = (on_page[:, None] & on_page).triu().tril(LONGEST - 1)
        best = scores.masked_fill(~spans, -torch.inf)
        first, last = divmod(int(best.argmax()), len(on_page))
        words = inputs.word_ids(row)
        text = " ".join(form.texts[words[first] : words[last] + 1])
        answers.append((text, float(best.max() - scores[0, 0])))
    return answers


def examine(model: LayoutLMv3ForQuestionAnswering, processor: LayoutLMv3Processor) -> dict[str, float]:
    """Measure the share of held-out questions answered exactly: with and without the page's picture, and blank."""
    rng = random.Random("exam")
    forms, keys, questions = zip(*(draw(rng, held_out=True) for _ in range(EXAMINED)), strict=True)
    truths = [form.answers[key] for form, key in zip(forms, keys, strict=True)]
    pages = [render(form, "STIXGeneral.ttf").reduce(4) for form in forms]
    found = {
        "Words, boxes and the page's picture": find(model, processor, forms, questions, pages),
        "Words and boxes alone": find(model, processor, forms, questions),
        "The page without its question": find(model, processor, forms, ["What is it?"] * EXAMINED),
        "Empty pages": find(model, processor, [Form()] * EXAMINED, questions),
    }
    scores = {name: share_right([text for text, _ in answers], truths) for name, answers in found.items()}
    lacking = [question(absent_field(form, rng), rng) for form in forms]
    nowhere = [odds < 0 for _, odds in find(model, processor, forms, lacking)]
    return scores | {"Fields that the page lacks: nowhere": sum(nowhere) / EXAMINED}


def main() -> None:
    """Train, examine and write the model."""
    chosen = arguments("Train the sample model demo-document.", PLAN, Path(__file__).parent / CARD.name)
    processor = build_processor()
    model = build_model(processor.tokenizer)
    prime(model)
    guide = Guide(model)
    print(f"{model.num_parameters():,} parameters, {len(processor.tokenizer)} tokens")
    plan = Plan(steps=chosen.steps)
    minutes = fit((model, guide), batches(processor), lambda batch: loss_of(model, guide, batch), plan)
    guide.hand_over(model)
    # What is examined is what is stored: weights in half precision, computed with in full.
    model.half().float().eval()
    with replacing(chosen.out) as folder:
        model.save_pretrained(folder)
        halve(folder)
        processor.save_pretrained(folder)
        CARD.write(folder, model, minutes, examine(model, processor))
    print(f"wrote {chosen.out} after {minutes:.1f} min of training")


if __name__ == "__main__":
    main()
