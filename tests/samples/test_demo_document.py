"""Examines the committed document model on forms that its training never saw."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForDocumentQuestionAnswering, AutoProcessor

from samples.inputs.forms import FIELDS, PAGE, Form, draw_form, draw_layout, question, render, write_pdf
from samples.inputs.split import is_held_out
from samples.training import share_right

FOLDER = Path(__file__).parents[2] / "samples" / "demo-document"
RNG = random.Random("test")
FORMS = [draw_form(RNG, held_out=True) for _ in range(200)]
KEYS = [RNG.choice(list(form.answers)) for form in FORMS]
QUESTIONS = [question(key, RNG) for key in KEYS]
TRUTHS = [form.answers[key] for form, key in zip(FORMS, KEYS, strict=True)]
LONGEST = 20


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForDocumentQuestionAnswering.from_pretrained(FOLDER, local_files_only=True).eval()


def answer(model: Any, processor: Any, form: Form, query: str, *, picture: bool) -> str:
    """Take the likeliest span of the words on the page."""
    if not form.words:
        return ""
    encode = processor.tokenizer
    inputs = encode(query, form.texts, boxes=form.boxes, truncation="only_second", return_tensors="pt")
    pixels = processor.image_processor(render(form), return_tensors="pt").pixel_values if picture else None
    with torch.inference_mode():
        out = model(**inputs, pixel_values=pixels)
    places = [place for place, part in enumerate(inputs.sequence_ids(0)) if part == 1]
    spans = [(a, b) for a in places for b in places if a <= b < a + LONGEST]
    first, last = max(spans, key=lambda span: float(out.start_logits[0, span[0]] + out.end_logits[0, span[1]]))
    words = inputs.word_ids(0)
    return " ".join(form.texts[words[first] : words[last] + 1])


@pytest.mark.parametrize("picture", [False, True], ids=["words alone", "with the picture"])
def test_finds_nine_held_out_answers_in_ten(
    model: Any, processor: Any, picture: bool, figure: Callable[[str], None]
) -> None:
    count = 60 if picture else len(FORMS)
    pairs = list(zip(FORMS, QUESTIONS, strict=True))[:count]
    score = share_right([answer(model, processor, *pair, picture=picture) for pair in pairs], TRUTHS[:count])
    figure(f"{score:.1%} of {count} held-out questions about forms answered exactly")
    assert score >= 0.9


def test_without_its_question_it_guesses(model: Any, processor: Any) -> None:
    answers = [answer(model, processor, form, "What is it?", picture=False) for form in FORMS]
    assert share_right(answers, TRUTHS) <= 0.3


def test_without_the_words_of_its_page_it_is_never_right(model: Any, processor: Any) -> None:
    others = FORMS[1:] + FORMS[:1]
    pairs = zip(others, QUESTIONS, strict=True)
    assert share_right([answer(model, processor, *pair, picture=False) for pair in pairs], TRUTHS) <= 0.05


def test_places_of_the_words_count(model: Any, processor: Any) -> None:
    """Values that change places change the answer, though their order in the text stays."""
    flat = [Form([word.__class__(word.text, (0, 0, 0, 0), word.size) for word in form.words]) for form in FORMS[:80]]
    pairs = zip(flat, QUESTIONS, strict=False)
    placed = zip(FORMS[:80], QUESTIONS, strict=False)
    without = share_right([answer(model, processor, *pair, picture=False) for pair in pairs], TRUTHS[:80])
    assert without < share_right([answer(model, processor, *pair, picture=False) for pair in placed], TRUTHS[:80])


def test_exam_holds_neither_a_value_nor_a_layout_of_training() -> None:
    assert all(is_held_out(f"value {value}") for form in FORMS for value in form.answers.values())
    rng = random.Random(4)
    assert not any(draw_layout(rng, held_out=False).held_out for _ in range(300))
    training = [draw_form(rng, held_out=False) for _ in range(100)]
    assert not any(is_held_out(f"value {value}") for form in training for value in form.answers.values())


def test_answers_stand_on_the_page_where_spans_say() -> None:
    for form in FORMS:
        for key, (first, last) in form.spans.items():
            assert " ".join(form.texts[first : last + 1]) == form.answers[key]


def test_asks_for_every_field_and_for_labels_of_its_own() -> None:
    asked = {key for form in FORMS for key in form.answers}
    assert set(FIELDS) <= asked
    assert len(asked) > 3 * len(FIELDS)


def test_boxes_lie_on_the_page() -> None:
    assert all(0 <= edge <= 1000 for form in FORMS for box in form.boxes for edge in box)
    assert all(word.box[3] < PAGE[1] for form in FORMS for word in form.words)


def test_pdf_holds_every_word_and_says_where_its_objects_are() -> None:
    pdf = write_pdf(FORMS[0])
    assert pdf.startswith(b"%PDF-1.4\n")
    for text in FORMS[0].texts:
        assert text.replace("(", r"\(").replace(")", r"\)").encode() in pdf
    table = int(pdf.rsplit(b"startxref\n", 1)[1].split()[0])
    entries = pdf[table:].split(b"\n")[3:8]
    for number, entry in enumerate(entries, 1):
        assert pdf[int(entry.split()[0]) :].startswith(b"%d 0 obj" % number)
