"""Examines the committed OCR model on lines that its training never saw."""

import random
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from samples.inputs.forms import cut_words, draw_form
from samples.inputs.lines import (
    ALIKE,
    CHARACTERS,
    EXAM_FONTS,
    LONGEST,
    TRAINING_FONTS,
    blank_line,
    draw_line,
    draw_text,
    render,
)
from samples.inputs.split import is_held_out
from samples.train_demo_ocr import draw_words
from samples.training import share_right

FOLDER = Path(__file__).parents[2] / "samples" / "demo-ocr"
LINES = [draw_line(random.Random(f"test {index}"), held_out=True) for index in range(200)]
TEXTS = [line.text for line in LINES]


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(FOLDER, local_files_only=True).eval()


def read(model: Any, processor: Any, images: list[Image.Image]) -> list[str]:
    pixels = processor(images=images, return_tensors="pt").pixel_values
    texts: list[str] = processor.batch_decode(model.generate(pixels), skip_special_tokens=True)
    return texts


def test_reads_nine_held_out_lines_in_ten(model: Any, processor: Any, figure: Callable[[str], None]) -> None:
    score = share_right(read(model, processor, [line.image for line in LINES]), TEXTS)
    figure(f"{score:.1%} of {len(LINES)} held-out lines read exactly")
    assert score >= 0.9


@pytest.mark.parametrize("font", ["DejaVuSans.ttf", "STIXGeneral.ttf", "cmss10.ttf"])
def test_reads_most_words_of_a_page(model: Any, processor: Any, font: str, figure: Callable[[str], None]) -> None:
    rng = random.Random("pages")
    words = [word for _ in range(4) for word in cut_words(draw_form(rng, held_out=True), font, 3, by_line=True)]
    score = share_right(read(model, processor, [word.image for word in words]), [word.text for word in words])
    figure(f"{score:.1%} of {len(words)} words of pages in {font} read exactly")
    assert score >= 0.75


def test_reads_nothing_on_blank_paper(model: Any, processor: Any) -> None:
    rng = random.Random("blank")
    assert share_right(read(model, processor, [blank_line(rng) for _ in TEXTS]), TEXTS) <= 0.05


def test_a_picture_alone_reads_as_it_does_among_others(model: Any, processor: Any) -> None:
    together = read(model, processor, [line.image for line in LINES[:8]])
    assert [read(model, processor, [line.image])[0] for line in LINES[:8]] == together


def test_lines_of_the_exam_are_of_the_held_out_side() -> None:
    assert all(is_held_out(text) for text in TEXTS)
    assert {line.font for line in LINES} == set(EXAM_FONTS)


def test_training_never_sees_a_text_or_a_font_of_the_exam() -> None:
    rng = random.Random("training")
    lines = [draw_line(rng, held_out=False) for _ in range(500)]
    assert not any(is_held_out(line.text) for line in lines)
    assert not {line.font for line in lines} & set(EXAM_FONTS)
    assert not set(TRAINING_FONTS) & set(EXAM_FONTS)


def test_training_sees_no_held_out_word() -> None:
    rng = random.Random("words")
    words = [word for _ in range(20) for word in draw_words(rng, held_out=False)]
    assert len(words) > 200
    assert not any(is_held_out(word.text) for word in words)
    assert {word.font for word in words} <= set(TRAINING_FONTS)


def test_words_of_pages_are_of_known_characters_and_not_too_long() -> None:
    rng = random.Random("known")
    words = {word for _ in range(200) for word in draw_form(rng, held_out=False).texts}
    assert max(map(len, words)) <= LONGEST
    assert set("".join(words)) <= set(CHARACTERS)


def test_texts_use_known_characters_and_have_a_readable_case() -> None:
    rng = random.Random(7)
    for text in (draw_text(rng, held_out=False) for _ in range(2000)):
        assert 1 <= len(text) <= LONGEST
        assert set(text) <= set(CHARACTERS)
        assert not set(text) <= ALIKE


def test_every_character_is_drawn_now_and_then() -> None:
    rng = random.Random(8)
    seen = set("".join(islice((draw_text(rng, held_out=False) for _ in iter(int, 1)), 3000)))
    assert seen == set(CHARACTERS)


def test_same_seed_draws_the_same_picture() -> None:
    first, second = (render("AB-12", EXAM_FONTS[0], random.Random(3)) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_tokens_spell_any_known_text(processor: Any) -> None:
    tokens = processor.tokenizer(CHARACTERS, add_special_tokens=False).input_ids
    assert len(tokens) == len(CHARACTERS)
    assert processor.tokenizer.decode(tokens) == CHARACTERS


def test_model_stops_by_itself(model: Any, processor: Any) -> None:
    pixels = processor(images=[line.image for line in LINES[:20]], return_tensors="pt").pixel_values
    longest = model.generate(pixels, max_length=None, max_new_tokens=38)
    ends = [model.generation_config.pad_token_id, model.generation_config.eos_token_id]
    assert torch.isin(longest[:, -1], torch.tensor(ends)).all()
