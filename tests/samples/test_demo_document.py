"""Examines the committed document model on forms that its training never saw."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pypdfium2
import pytest
import torch
from transformers import AutoModelForDocumentQuestionAnswering, AutoModelForImageTextToText, AutoProcessor

from samples.guide import NOT_A_FIELD, Guide, find_truth, prime
from samples.inputs.forms import (
    FIELDS,
    PAGE,
    Form,
    Word,
    absent_field,
    as_read,
    cut_words,
    draw_form,
    draw_layout,
    question,
    render,
    write_pdf,
)
from samples.inputs.split import is_held_out
from samples.train_demo_document import build_model, encode
from samples.train_demo_ocr import read
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


def answer(model: Any, processor: Any, form: Form, query: str, *, picture: bool = False) -> str:
    """Take the likeliest span of the words on the page."""
    return find(model, processor, form, query, picture=picture)[0]


def find(model: Any, processor: Any, form: Form, query: str, *, picture: bool = False) -> tuple[str, float]:
    """Take the likeliest span, and by how much it beats the first token of all, which stands for nowhere."""
    if not form.words:
        return "", -float("inf")
    encode = processor.tokenizer
    inputs = encode(query, form.texts, boxes=form.boxes, truncation="only_second", return_tensors="pt")
    pixels = processor.image_processor(render(form), return_tensors="pt").pixel_values if picture else None
    with torch.inference_mode():
        out = model(**inputs, pixel_values=pixels)
    starts, ends = out.start_logits[0].tolist(), out.end_logits[0].tolist()
    places = [place for place, part in enumerate(inputs.sequence_ids(0)) if part == 1]
    spans = [(a, b) for a in places for b in places if a <= b < a + LONGEST]
    first, last = max(spans, key=lambda span: starts[span[0]] + ends[span[1]])
    words = inputs.word_ids(0)
    text = " ".join(form.texts[words[first] : words[last] + 1])
    return text, starts[first] + ends[last] - starts[0] - ends[0]


def read_pdf(pdf: bytes) -> Form:
    """Read the words and boxes of a PDF's text layer, letter by letter."""
    form, letters, edges = Form(), "", []
    document = pypdfium2.PdfDocument(pdf)
    text = document[0].get_textpage()
    for place in range(text.count_chars()):
        letter = text.get_text_range(place, 1)
        if letter.strip():
            letters += letter
            edges.append(text.get_charbox(place))
        if letters and (not letter.strip() or place == text.count_chars() - 1):
            lefts, bottoms, rights, tops = zip(*edges, strict=True)
            box = (min(lefts), PAGE[1] - max(tops), max(rights), PAGE[1] - min(bottoms))
            form.words.append(Word(letters, box, box[3] - box[1]))
            letters, edges = "", []
    document.close()
    return form


@pytest.mark.parametrize("picture", [False, True], ids=["words alone", "with the picture"])
def test_finds_nine_held_out_answers_in_ten(
    model: Any, processor: Any, picture: bool, figure: Callable[[str], None]
) -> None:
    count = 60 if picture else len(FORMS)
    pairs = list(zip(FORMS, QUESTIONS, strict=True))[:count]
    score = share_right([answer(model, processor, *pair, picture=picture) for pair in pairs], TRUTHS[:count])
    figure(f"{score:.1%} of {count} held-out questions about forms answered exactly")
    assert score >= 0.9


def test_finds_nine_answers_in_ten_in_pdfs(model: Any, processor: Any, figure: Callable[[str], None]) -> None:
    pages = [read_pdf(write_pdf(form)) for form in FORMS]
    pairs = zip(pages, QUESTIONS, strict=True)
    score = share_right([answer(model, processor, *pair) for pair in pairs], TRUTHS)
    figure(f"{score:.1%} of {len(FORMS)} held-out questions about PDFs answered exactly")
    assert score >= 0.9


@pytest.mark.slow
def test_finds_answers_on_scans_that_the_ocr_model_reads(
    model: Any, processor: Any, figure: Callable[[str], None]
) -> None:
    folder = FOLDER.parent / "demo-ocr"
    reader = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True).eval()
    reading = AutoProcessor.from_pretrained(folder, local_files_only=True)
    count = 30
    pages = []
    for form in FORMS[:count]:
        pictures = [word.image for word in cut_words(form, "DejaVuSans.ttf", 3, by_line=True)]
        texts = read(reader, reading, pictures)
        pages.append(Form([Word(text, word.box, word.size) for text, word in zip(texts, form.words, strict=True)]))
    pairs = zip(pages, QUESTIONS[:count], strict=True)
    score = share_right([answer(model, processor, *pair) for pair in pairs], TRUTHS[:count])
    figure(f"{score:.1%} of {count} held-out questions about scans answered exactly")
    assert score >= 0.8


def test_without_its_question_it_guesses(model: Any, processor: Any, figure: Callable[[str], None]) -> None:
    score = share_right([answer(model, processor, form, "What is it?") for form in FORMS], TRUTHS)
    figure(f"{score:.1%} of {len(FORMS)} right without the question")
    assert score <= 0.2


def test_without_the_words_of_its_page_it_is_never_right(model: Any, processor: Any) -> None:
    others = FORMS[1:] + FORMS[:1]
    pairs = zip(others, QUESTIONS, strict=True)
    assert share_right([answer(model, processor, *pair) for pair in pairs], TRUTHS) <= 0.05


def test_finds_nothing_on_empty_pages(model: Any, processor: Any) -> None:
    assert {answer(model, processor, Form(), query) for query in QUESTIONS} == {""}


def test_tells_pages_that_lack_the_field_from_those_that_have_it(
    model: Any, processor: Any, figure: Callable[[str], None]
) -> None:
    rng = random.Random("lacking")
    here = [find(model, processor, *pair)[1] > 0 for pair in zip(FORMS, QUESTIONS, strict=True)]
    lacking = [find(model, processor, form, question(absent_field(form, rng), rng))[1] < 0 for form in FORMS]
    found, missed = sum(here) / len(here), sum(lacking) / len(lacking)
    figure(f"{found:.1%} of fields on the page are said to be there, {missed:.1%} of others not to be")
    assert found >= 0.9
    assert missed >= 0.8


def test_places_of_the_words_count(model: Any, processor: Any) -> None:
    flat = [Form([word.__class__(word.text, (0, 0, 0, 0), word.size) for word in form.words]) for form in FORMS[:80]]
    pairs = zip(flat, QUESTIONS, strict=False)
    placed = zip(FORMS[:80], QUESTIONS, strict=False)
    without = share_right([answer(model, processor, *pair) for pair in pairs], TRUTHS[:80])
    assert without < share_right([answer(model, processor, *pair) for pair in placed], TRUTHS[:80])


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


def test_labels_stand_before_their_values() -> None:
    for form in FORMS:
        for key, (first, last) in form.labels.items():
            assert last < form.spans[key][0]
            assert key not in FIELDS or " ".join(form.texts[first : last + 1]).rstrip(":- ") in FIELDS[key][0]


def test_words_are_read_where_they_stand_and_with_few_mistakes() -> None:
    read = as_read(FORMS[0], random.Random(2))
    same = [a.text == b.text for form in FORMS for a, b in zip(form.words, as_read(form, RNG).words, strict=True)]
    assert 0.95 < sum(same) / len(same) < 1
    for word, seen in zip(FORMS[0].words, read.words, strict=True):
        assert word.box[1] - 2 < seen.box[1] < seen.box[3] < word.box[3] + 0.4 * word.size + 2


def test_absent_field_is_on_no_label() -> None:
    assert not any(absent_field(form, RNG) in form.answers for form in FORMS)


def test_guide_hands_its_biases_over_without_a_change_of_the_answer(processor: Any) -> None:
    torch.manual_seed(3)
    trained = build_model(processor.tokenizer).eval()
    prime(trained)
    inputs = encode(processor, FORMS[:2], QUESTIONS[:2], None)
    guide = Guide(trained)
    for table in guide.tables.values():
        torch.nn.init.normal_(table.weight)
    guided = trained(**inputs).start_logits
    guide.hand_over(trained)
    assert torch.allclose(trained(**inputs).start_logits, guided, atol=1e-4)


def test_guide_teaches_the_biases(processor: Any) -> None:
    learner = build_model(processor.tokenizer)
    guide = Guide(learner)
    inputs = encode(processor, FORMS[:2], QUESTIONS[:2], None)
    out = learner(**inputs, output_hidden_states=True, output_attentions=True)
    guide(out, find_truth(inputs, FORMS[:2], KEYS[:2])).backward()
    assert all(table.weight.grad.abs().sum() > 0 for table in guide.tables.values())


def test_truth_marks_the_answer_or_nowhere(processor: Any) -> None:
    keys = [KEYS[0], absent_field(FORMS[1], RNG)]
    inputs = encode(processor, FORMS[:2], [question(key, RNG) for key in keys], None)
    truth = find_truth(inputs, FORMS[:2], keys)
    first, last = truth.answers[0].tolist()
    assert processor.tokenizer.decode(inputs.input_ids[0, first : last + 1]).strip() == TRUTHS[0]
    assert (truth.values[0, first : last + 1] != NOT_A_FIELD).all()
    assert truth.answers[1].tolist() == [0, 0]


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
