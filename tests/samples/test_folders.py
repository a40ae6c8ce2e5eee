"""Checks what all committed media models have in common."""

import re
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "samples"
NAMES = ("demo-ocr", "demo-asr", "demo-audio", "demo-document", "demo-image", "demo-vlm", "demo-video")


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_one_small_safetensors_file(name: str) -> None:
    weights = [path for path in (SAMPLES / name).iterdir() if path.suffix not in (".json", ".jinja", ".md")]
    assert [path.name for path in weights] == ["model.safetensors"]
    assert weights[0].stat().st_size <= 3_000_000


@pytest.mark.parametrize("name", NAMES)
def test_files_name_no_place_of_their_making(name: str) -> None:
    for path in (SAMPLES / name).iterdir():
        if path.suffix != ".safetensors":
            assert not re.search(r"/(tmp|home|root|work|Users)\b|_name_or_path", path.read_text("utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_card_says_how_well_it_does_and_how_it_was_made(name: str) -> None:
    card = (SAMPLES / name / "README.md").read_text("utf-8")
    assert f"python -m samples.train_{name.replace('-', '_')}`" in card
    assert re.search(r"\| \d+\.\d% \|", card)
