"""The exam of the sample model once more, in each number format that it can be served in."""

from collections.abc import Callable

import pytest
import torch

from src.inference.engines.transformers.text_generation import CausalRunner
from tests.samples.test_demo_text import FOLDER, QUESTIONS, generate, share_right

pytestmark = pytest.mark.xdist_group("torch")


@pytest.mark.parametrize(("dtype", "most"), [("bfloat16", 0.51), ("float16", 0.51), ("int8", 0.36), ("nf4", 0.36)])
def test_answers_nine_held_out_questions_in_ten_with_fewer_bytes(
    dtype: str, most: float, figure: Callable[[str], None]
) -> None:
    def load(number_format: str) -> CausalRunner:
        return CausalRunner.load("demo-text", FOLDER, device="cpu", dtype=number_format, trust_remote_code=False)

    runner, full = load(dtype), load("float32").parameter_bytes()
    with torch.inference_mode():
        replies = generate(runner.model, runner.processor, [question.prompt for question in QUESTIONS], chat=True)
    share, size = share_right(replies, QUESTIONS), runner.parameter_bytes() / full
    figure(f"demo-text in {dtype}: {share:.1%} of {len(QUESTIONS)} held-out questions right, {size:.0%} of the bytes")
    assert runner.dtype == dtype
    assert share >= 0.9
    assert size <= most
