"""OCR on tiny models of real architectures, beside direct calls of transformers."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image

from src.core.errors import InvalidInputError
from src.inference.engines.transformers import families, recognition
from src.inference.engines.transformers.florence import florence_task, ocr_lines, plain_text
from src.inference.engines.transformers.recognition import Reading
from src.inference.models.ocr import OcrHandler
from tests.architectures.case import difference
from tests.architectures.rows_ocr import donut, florence2, got_ocr2, trocr
from tests.architectures.tokens import generated
from tests.architectures.vision_builders import settle
from tests.tiny_vision import tiny_llava

pytestmark = pytest.mark.xdist_group("torch")

TOLERANCE = 1e-4
EXACT = {"max_new_tokens": 8, "logprobs": True}
DONUT = "VisionEncoderDecoderModel"


def picture(seed: int, height: int = 64, width: int = 64) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def load(folder: Path, architecture: str) -> Any:
    module, _, name = str(families.runner_for("ocr", [architecture])).partition(":")
    runner = getattr(import_module(module), name)
    return runner.load("reader", folder, device="cpu", dtype="auto", trust_remote_code=False)


def read(runner: Any, *images: Any, prompt: str | None = None, **options: Any) -> Any:
    handler, given = OcrHandler(), {**EXACT, **options}
    data = {"prompt": prompt, "image": [{"pixels": pixels, "type": "png"} for pixels in images]}
    return handler.postprocess(runner.run(handler.preprocess(data, given)["inputs"], given), given)


@pytest.fixture(scope="module")
def trocr_reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("trocr")
    trocr(folder)
    return load(folder, DONUT)


@pytest.fixture(scope="module")
def donut_reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("donut")
    donut(folder)
    return load(folder, DONUT)


@pytest.fixture(scope="module")
def florence_reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("florence")
    florence2(folder)
    return load(folder, "Florence2ForConditionalGeneration")


def test_trocr_reads_as_a_direct_call_does(trocr_reader: Any) -> None:
    answer = read(trocr_reader, picture(1))
    model, processor = trocr_reader.model, trocr_reader.processor
    pixels = processor(images=Image.fromarray(picture(1)), return_tensors="pt").pixel_values
    expected = generated(model, processor.tokenizer, {"pixel_values": pixels}, skip=1)
    assert answer["text"] == expected.answer.strip()
    assert difference(answer["metadata"]["logprobs"], expected.numbers) < TOLERANCE
    assert answer["lines"] == [{"text": answer["text"], "score": pytest.approx(np.exp(np.mean(expected.numbers)))}]
    assert difference(read(trocr_reader, picture(2))["metadata"]["logprobs"], expected.numbers) > 10 * TOLERANCE


def test_many_crops_are_read_in_batches_as_each_alone(trocr_reader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "_TOGETHER", 3)
    crops = [picture(seed, 20 + seed, 90 - seed) for seed in range(5)]
    alone = [trocr_reader.recognise([crop], EXACT)[0] for crop in crops]
    together = trocr_reader.recognise(crops, EXACT)
    assert [reading.text for reading in together] == [reading.text for reading in alone]
    for one, other in zip(together, alone, strict=True):
        assert difference(one.logprobs or [], other.logprobs or []) < TOLERANCE


def test_a_text_ends_with_its_end_token_though_its_neighbours_go_on(trocr_reader: Any) -> None:
    crops = [picture(seed) for seed in range(6)]
    tokenizer = trocr_reader.processor.tokenizer
    pixels = trocr_reader.processor(images=[Image.fromarray(crop) for crop in crops], return_tensors="pt").pixel_values
    written = trocr_reader.model.generate(pixel_values=pixels, max_new_tokens=8, do_sample=False)[:, 1:].tolist()
    lengths, end = next(
        (found, token)
        for token in sorted({token for row in written for token in row})
        if len(set(found := [row.index(token) + 1 if token in row else len(row) for row in written])) > 1
    )

    readings = trocr_reader.recognise(crops, {**EXACT, "eos_token_id": end})

    assert [reading.tokens for reading in readings] == lengths
    assert [len(reading.logprobs) for reading in readings] == lengths
    assert [reading.ended for reading in readings] == [end in row for row in written]
    texts = [
        tokenizer.decode(row[:length], skip_special_tokens=True) for row, length in zip(written, lengths, strict=True)
    ]
    assert [reading.text for reading in readings] == texts


def test_several_pictures_are_texts_and_their_logprobs_stand_in_a_row(trocr_reader: Any) -> None:
    first, second = read(trocr_reader, picture(1)), read(trocr_reader, picture(2))
    both = read(trocr_reader, picture(1), picture(2))
    assert both["texts"] == [first["text"], second["text"]]
    assert both["text"] == f"{first['text']}\n\n{second['text']}"
    expected = first["metadata"]["logprobs"] + second["metadata"]["logprobs"]
    assert difference(both["metadata"]["logprobs"], expected) < TOLERANCE
    assert both["metadata"]["tokens"] == first["metadata"]["tokens"] + second["metadata"]["tokens"]


def test_what_has_no_effect_is_a_warning(trocr_reader: Any) -> None:
    inputs = {"images": [picture(1)], "prompt": "Read this"}
    raw = trocr_reader.run(inputs, {"max_new_tokens": 2, "num_return_sequences": 3, "language": "zh", "top_p": 0.5})
    assert raw["warnings"] == [
        "option 'language' has no effect on ocr",
        "option 'num_return_sequences' has no effect on ocr",
        "option 'top_p' has no effect on ocr",
        "field 'prompt' has no effect: this model reads all text and takes no words",
        "the text was cut: raise max_new_tokens (and max_length) to read on",
    ]


def test_beams_have_no_logprobs(trocr_reader: Any) -> None:
    assert "logprobs" not in read(trocr_reader, picture(1), num_beams=2, logprobs=False)["metadata"]
    with pytest.raises(InvalidInputError, match="option 'logprobs' needs num_beams 1"):
        read(trocr_reader, picture(1), num_beams=2)


def test_donut_reads_as_a_direct_call_with_its_task_token_does(donut_reader: Any) -> None:
    answer = read(donut_reader, picture(1))
    processor = donut_reader.processor
    start = processor.tokenizer("<s_cord-v2>", add_special_tokens=False, return_tensors="pt").input_ids
    pixels = processor(images=Image.fromarray(picture(1)), return_tensors="pt").pixel_values
    inputs = {"pixel_values": pixels, "decoder_input_ids": start}
    expected = generated(donut_reader.model, processor.tokenizer, inputs, skip=start.shape[1])
    assert difference(answer["metadata"]["logprobs"], expected.numbers) < TOLERANCE
    assert read(donut_reader, picture(1), prompt="<s_cord-v2>") == answer
    assert difference(read(donut_reader, picture(2))["metadata"]["logprobs"], expected.numbers) > 10 * TOLERANCE


def test_donuts_tags_become_fields_and_their_texts_lines(donut_reader: Any) -> None:
    written = "<s_total> 93.50</s_total><s_cord-v2> a<sep/> b</s_cord-v2></s>"
    page = donut_reader._fields(Reading(written, [-0.1], 9, True), {})
    assert page["fields"] == {"total": "93.50", "cord-v2": ["a", "b"]}
    assert page["text"] == "93.50\na\nb"
    plain = donut_reader._fields(Reading("only words</s>", None, 3, True), {})
    assert plain["text"] == "only words"
    assert "fields" not in plain


def test_donut_names_the_tokens_that_its_answers_may_begin_with(donut_reader: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"begin with a token of its own: .*<s_cord-v2>"):
        read(donut_reader, picture(1), prompt="What is the total?")


@pytest.mark.parametrize("prompt", ["<OCR>", "<OCR_WITH_REGION>"])
def test_florence_reads_as_a_direct_call_does(florence_reader: Any, prompt: str) -> None:
    answer = read(florence_reader, picture(1), prompt=prompt)
    model, processor = florence_reader.model, florence_reader.processor
    inputs = processor(text=prompt, images=Image.fromarray(picture(1)), return_tensors="pt")
    expected = generated(model, processor.tokenizer, inputs, skip=1)
    assert difference(answer["metadata"]["logprobs"], expected.numbers) < TOLERANCE
    assert difference(read(florence_reader, picture(2), prompt=prompt)["metadata"]["logprobs"], expected.numbers) > 1e-4


SPECIAL = SimpleNamespace(bos_token="<s>", eos_token="</s>", pad_token="<pad>")
FLORENCE = SimpleNamespace(tokenizer=SPECIAL, tasks_answer_post_processing_type={"<OCR>": "", "<OCR_WITH_REGION>": ""})


def test_florences_regions_are_lines_with_boxes_in_pixels() -> None:
    corners = (100, 0, 300, 0, 300, 50, 100, 50)
    written = "</s><s>Invoice 7" + "".join(f"<loc_{place}>" for place in corners) + "12 May" + "<loc_999>" * 8 + "</s>"
    lines = ocr_lines(FLORENCE, written, (1000, 2000))
    assert lines[0] == {"text": "Invoice 7", "box": [100, 1, 300, 101], "polygon": [100, 1, 300, 1, 300, 101, 100, 101]}
    assert (lines[1]["text"], lines[1]["box"]) == ("12 May", [1000, 1999, 1000, 1999])
    assert plain_text(FLORENCE, written) == "Invoice 712 May"
    assert florence_task(FLORENCE, "<OCR_WITH_REGION>") == "<OCR_WITH_REGION>"
    assert florence_task(FLORENCE, "What is this?") is None


@pytest.mark.slow
def test_got_ocr_reads_as_a_direct_call_does(tmp_path: Path) -> None:
    got_ocr2(tmp_path)
    reader = load(tmp_path, "GotOcr2ForConditionalGeneration")
    answer = read(reader, picture(1))
    inputs = reader.processor(Image.fromarray(picture(1)), return_tensors="pt")
    skip = inputs["input_ids"].shape[1]
    expected = generated(reader.model, reader.processor.tokenizer, inputs, skip=skip)
    assert answer["text"] == expected.answer.strip()
    assert difference(answer["metadata"]["logprobs"], expected.numbers) < TOLERANCE


def test_any_model_that_sees_can_be_asked_for_the_text(tmp_path: Path) -> None:
    tiny_llava(tmp_path)
    reader = load(tmp_path, "LlavaForConditionalGeneration")
    own, asked = read(reader, picture(1)), read(reader, picture(1), prompt="Which words are there?")
    expected = reader.ask("Which words are there?", {**EXACT, "do_sample": False, "min_length": 0}, images=[picture(1)])
    assert asked["text"] == expected["response"].strip()
    assert difference(own["metadata"]["logprobs"], asked["metadata"]["logprobs"]) > 10 * TOLERANCE


@pytest.fixture(scope="module")
def line_reader(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("line")
    characters = ["blank", *"abcdefghij 0123456789"]
    config = hf.PPOCRV6TinyRecConfig(head_out_channels=len(characters))
    settle(hf.PPOCRV6TinyRecForTextRecognition(config)).save_pretrained(folder)
    hf.PPOCRV6SmallRecImageProcessor(character_list=characters).save_pretrained(folder)
    return load(folder, "PPOCRV6TinyRecForTextRecognition")


def test_pp_ocr_reads_lines_as_a_direct_call_does(line_reader: Any) -> None:
    crops = [picture(1, 32, 300), picture(2, 20, 90)]
    answer = read(line_reader, *crops)
    for place, crop in enumerate(crops):
        inputs = line_reader.processor(Image.fromarray(crop), return_tensors="pt")
        with torch.inference_mode():
            (expected,) = line_reader.processor.post_process_text_recognition(line_reader.model(**inputs))
        assert answer["texts"][place] == expected["text"].strip() != ""
    assert len(answer["metadata"]["logprobs"]) == answer["metadata"]["tokens"]
    raw = line_reader.run({"images": crops, "prompt": None}, {"temperature": 0.5, "num_beams": 2})
    assert raw["warnings"] == [
        "option 'temperature' has no effect on ocr",
        "option 'num_beams' has no effect on ocr",
    ]
