"""Models made for questions about pictures: ViLT chooses, BLIP writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from src.core.errors import InvalidInputError
from src.inference.engines.transformers.visual_qa import QuestionRunner
from src.inference.models.vlm import VlmHandler
from tests.architectures.tokens import generated
from tests.architectures.vision_builders import TINY_VISION, settle, word_pieces

pytestmark = pytest.mark.xdist_group("torch")

PICTURE = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
QUESTION = "how many stars are there?"
ANSWERS = ("yes", "no", "three", "green", "a dog")


def load(folder: Path) -> Any:
    return QuestionRunner.load("asker", folder, device="cpu", dtype="auto", trust_remote_code=False)


def asked(runner: Any, prompt: str, *images: Any, **options: Any) -> Any:
    return VlmHandler().postprocess(runner.run({"prompt": prompt, "images": list(images)}, options), options)


@pytest.fixture(scope="module")
def vilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vilt")
    tokenizer = word_pieces(hf.BertTokenizer)
    config = hf.ViltConfig(
        **TINY_VISION,
        vocab_size=len(tokenizer),
        image_size=64,
        patch_size=16,
        max_position_embeddings=16,
        id2label=dict(enumerate(ANSWERS)),
        label2id={answer: index for index, answer in enumerate(ANSWERS)},
    )
    settle(hf.ViltForQuestionAnswering(config)).save_pretrained(folder)
    hf.ViltProcessor(hf.ViltImageProcessor(size={"shortest_edge": 64}, size_divisor=16), tokenizer).save_pretrained(
        folder
    )
    return folder


def test_vilts_answers_are_those_of_a_direct_call(vilt: Path) -> None:
    answer = asked(load(vilt), QUESTION, PICTURE)

    model, processor = hf.ViltForQuestionAnswering.from_pretrained(vilt).eval(), hf.AutoProcessor.from_pretrained(vilt)
    with torch.inference_mode():
        logits = model(**processor(Image.fromarray(PICTURE), QUESTION, return_tensors="pt")).logits[0]
    order = logits.argsort(descending=True).tolist()
    assert answer["description"] == model.config.id2label[order[0]]
    assert answer["answers"] == [model.config.id2label[index] for index in order]
    assert answer["scores"] == pytest.approx([float(logits.sigmoid()[index]) for index in order], abs=1e-4)
    assert asked(load(vilt), QUESTION, 255 - PICTURE)["scores"] != pytest.approx(answer["scores"], abs=1e-3)


def test_top_k_says_how_many_answers_and_other_options_are_warned_of(vilt: Path) -> None:
    raw = load(vilt).run({"prompt": QUESTION, "images": [PICTURE]}, {"top_k": 2, "temperature": 0.1})
    assert len(raw["answers"]) == len(raw["scores"]) == 2
    assert raw["warnings"] == ["option 'temperature' has no effect on this model"]


def test_too_long_a_question_or_two_pictures_are_refused(vilt: Path) -> None:
    runner = load(vilt)
    with pytest.raises(InvalidInputError, match="the model reads 16: shorten the prompt"):
        asked(runner, QUESTION * 4, PICTURE)
    with pytest.raises(InvalidInputError, match="looks at one picture and the request has 2"):
        asked(runner, QUESTION, PICTURE, PICTURE)


def test_blips_answer_is_that_of_a_direct_call(tmp_path: Path) -> None:
    tokenizer = word_pieces(hf.BertTokenizer)
    text = {
        **TINY_VISION,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": 32,
        "projection_dim": 32,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**TINY_VISION, "image_size": 32, "patch_size": 8, "projection_dim": 32}
    config = hf.BlipConfig(text_config=text, vision_config=vision, projection_dim=32)
    settle(hf.BlipForQuestionAnswering(config)).save_pretrained(tmp_path)
    pictures = hf.BlipImageProcessor(size={"height": 32, "width": 32})
    hf.BlipProcessor(pictures, tokenizer).save_pretrained(tmp_path)

    options = {"max_new_tokens": 8, "do_sample": False, "min_length": 0, "logprobs": True}
    answer = asked(load(tmp_path), QUESTION, PICTURE, **options)

    model = hf.BlipForQuestionAnswering.from_pretrained(tmp_path).eval()
    processor = hf.AutoProcessor.from_pretrained(tmp_path)
    inputs = processor(images=Image.fromarray(PICTURE), text=QUESTION, return_tensors="pt")
    expected = generated(model, processor.tokenizer, inputs, skip=1)
    assert answer["description"] == expected.answer
    assert answer["metadata"]["logprobs"] == pytest.approx(expected.numbers, abs=1e-4)
    changed = asked(load(tmp_path), QUESTION, 255 - PICTURE, **options)
    assert changed["metadata"]["logprobs"] != pytest.approx(expected.numbers, abs=1e-3)
