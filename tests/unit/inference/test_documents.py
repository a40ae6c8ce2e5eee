"""Document analysis by models that write: the direct call's answer, the surest page, options, refusals."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.core.errors import CancelledError, InvalidInputError, ModelLoadError
from src.inference.engines.base import stoppable
from tests.tiny_documents import tiny_donut, tiny_pix2struct, tiny_udop

pytestmark = pytest.mark.xdist_group("torch")

QUERY = "What is due?"
SHORT = {"max_new_tokens": 6}
KINDS = ["donut", "pix2struct", "llava", "udop"]
Asked = tuple[str, list[float]]


def tiny_llava(folder: Path) -> Path:
    from tests.architectures.rows_vision_llava import llava

    llava(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    builders: dict[str, Callable[[Path], Path]] = {
        "donut": tiny_donut, "pix2struct": tiny_pix2struct, "llava": tiny_llava, "udop": tiny_udop,
    }  # fmt: skip
    return {name: build(base / name) for name, build in builders.items()}


@pytest.fixture(scope="module")
def runners(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: load(folder) for name, folder in folders.items()}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(folder: Path) -> Any:
    from src.inference.engines.transformers.documents import PageRunner

    return PageRunner.load("tiny", folder, device="cpu", dtype="auto", trust_remote_code=False)


def page(number: int = 0, seed: int | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(number if seed is None else seed)
    shades = rng.integers(0, 255, (10, 8, 3), dtype=np.uint8)
    image = np.kron(shades, np.ones((12, 12, 1), np.uint8))
    words, boxes = ("total", "due", "12.50"), np.array([[10, 20, 90, 40], [100, 20, 150, 40], [10, 60, 90, 80]])
    return {"number": number, "image": image, "words": words, "boxes": boxes, "has_text": True}


def ask(runner: Any, *pages: dict[str, Any], query: str = QUERY, **options: Any) -> Any:
    return runner.run({"query": query, "pages": list(pages)}, {**SHORT, **options})


def generated(model: Any, inputs: dict[str, Any], skip: int) -> tuple[Any, list[float]]:
    import torch

    with torch.inference_mode():
        output = model.generate(
            **inputs, max_new_tokens=6, do_sample=False, return_dict_in_generate=True, output_logits=True
        )
    ids = output.sequences[0, skip:]
    numbers = [float(step[0].log_softmax(-1)[token]) for step, token in zip(output.logits, ids, strict=True)]
    return ids, numbers


def direct(kind: str, folder: Path, page: dict[str, Any]) -> Asked:
    """Returns answer and log-probabilities by the library alone."""
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    image = Image.fromarray(page["image"])
    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    if kind == "donut":
        text = f"<s_docvqa><s_question>{QUERY}</s_question><s_answer>"
        tokens = processor.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        pixels = processor(image, return_tensors="pt").pixel_values
        ids, numbers = generated(model, {"pixel_values": pixels, "decoder_input_ids": tokens}, tokens.shape[1])
        whole = processor.tokenizer.decode(ids).replace("</s>", "").replace("<pad>", "")
        return processor.token2json(f"<s_answer>{whole.split('</s_answer>')[0]}</s_answer>")["answer"], numbers
    if kind == "pix2struct":
        drawn = with_header(processor.image_processor, image)
        inputs, skip = processor.image_processor(drawn, is_vqa=False, max_patches=2048, return_tensors="pt"), 1
    elif kind == "udop":
        # The picture alone is made to be read by another program; words are given.
        processor.image_processor.apply_ocr = False
        inputs = processor(
            image, f"Question answering. {QUERY}", text_pair=list(page["words"]), boxes=page["boxes"].tolist(),
            return_tensors="pt",
        )  # fmt: skip
        skip = 1
    else:
        messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUERY}]}]
        text = processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = processor(images=image, text=text, return_tensors="pt")
        skip = inputs["input_ids"].shape[1]
    ids, numbers = generated(model, inputs, skip)
    return processor.tokenizer.decode(ids, skip_special_tokens=True).strip(), numbers


def with_header(pictures: Any, image: Any) -> Any:
    """Draws the question above a page, with the font that Pillow brings; alone it would be fetched."""
    from PIL import ImageFont
    from torch import from_numpy

    font = ImageFont.load_default(36)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return pictures.render_header(from_numpy(np.array(image)).permute(2, 0, 1), QUERY, font_bytes=font.font_bytes)


def test_answer_and_logprobs_are_the_direct_calls(runners: Any, folders: Any, kind: str) -> None:
    raw = ask(runners[kind], page(), logprobs=True)
    answer, numbers = direct(kind, folders[kind], page())
    assert raw["response"] == answer
    assert raw["metadata"]["logprobs"] == pytest.approx(numbers, abs=1e-4)
    assert raw["score"] == pytest.approx(math.exp(sum(numbers) / len(numbers)), rel=1e-3)
    assert (raw["page"], raw["metadata"]["pages"]) == (0, [0])


@pytest.mark.parametrize("changed", [{"page": page(0, seed=9)}, {"query": "Who pays?"}], ids=["page", "query"])
def test_another_page_or_query_has_another_score(runners: Any, kind: str, changed: dict[str, Any]) -> None:
    before = ask(runners[kind], page())
    after = ask(runners[kind], changed.get("page", page()), query=changed.get("query", QUERY))
    assert abs(after["score"] / before["score"] - 1) > 1e-3


def test_the_surest_of_several_pages_answers(runners: Any, folders: Any, kind: str) -> None:
    pages = [page(number) for number in (4, 5, 7)]
    alone = {each["number"]: ask(runners[kind], each) for each in pages}
    raw = ask(runners[kind], *pages)
    best = max(alone, key=lambda number: (bool(alone[number]["response"]), alone[number]["score"]))
    assert (raw["page"], raw["response"]) == (best, alone[best]["response"])
    assert raw["metadata"]["pages"] == [4, 5, 7]
    told = {found["page"]: found["score"] for found in raw["metadata"]["candidates"]}
    assert told == pytest.approx({number: answer["score"] for number, answer in alone.items()})
    assert "logprobs" not in raw["metadata"]


def test_a_page_that_says_nothing_gives_way(runners: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([("", -0.01), ("12.50", -2.0), ("", -0.02)])

    def answer_page(*_: Any) -> dict[str, Any]:
        text, number = next(said)
        return {"response": text, "metadata": {"logprobs": [number]}, "warnings": []}

    monkeypatch.setattr(runners["llava"], "answer_page", answer_page)
    raw = ask(runners["llava"], page(0), page(1), page(2))
    assert (raw["response"], raw["page"]) == ("12.50", 1)


def test_greedy_unless_asked_otherwise(runners: Any, kind: str) -> None:
    assert len({ask(runners[kind], page())["response"] for _ in range(4)}) == 1
    drawn = {ask(runners[kind], page(), do_sample=True, temperature=2.0, top_p=1.0)["response"] for _ in range(6)}
    assert len(drawn) > 1


def test_beams_answer_one_page_without_a_score_and_several_not_at_all(runners: Any, kind: str) -> None:
    alone = ask(runners[kind], page(), num_beams=2)
    assert (alone["score"], alone["warnings"]) == (None, [])
    several = ask(runners[kind], page(), page(1), num_beams=2)
    assert several["score"] is not None
    assert several["warnings"] == ["option 'num_beams' has no effect on document-analysis"]


def test_one_answer_is_given(runners: Any, kind: str) -> None:
    raw = ask(runners[kind], page(), num_return_sequences=3, do_sample=True)
    assert isinstance(raw["response"], str)
    assert raw["warnings"] == ["option 'num_return_sequences' has no effect on document-analysis"]


def test_max_length_leaves_the_tokens_of_pictures_out(runners: Any) -> None:
    text_tokens = ask(runners["llava"], page())["metadata"]["prompt_tokens"]
    raw = runners["llava"].run({"query": QUERY, "pages": [page()]}, {"max_length": text_tokens + 3, "min_length": 99})
    assert raw["metadata"]["tokens"] == 3


def test_reading_stops_once_nobody_waits(runners: Any, kind: str) -> None:
    with stoppable(lambda: True), pytest.raises(CancelledError):
        ask(runners[kind], page())


def test_warms_up_and_says_what_it_wants(runners: Any, kind: str) -> None:
    runners[kind].warm_up()
    assert runners[kind].media["needs_words"] is (kind == "udop")
    assert runners[kind].media["needs_images"] is True


@pytest.mark.parametrize(("height", "dpi"), [(64, 72.0), (2560, 219.0), (9000, 300.0)])
def test_donut_wants_pages_as_large_as_it_sees_them(
    runners: Any, monkeypatch: pytest.MonkeyPatch, height: int, dpi: float
) -> None:
    size = {"height": height, "width": 32}
    monkeypatch.setattr(runners["donut"].processor.image_processor, "size", size)
    assert runners["donut"].media["dpi"] == dpi


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("12.50</s_answer></s>", "12.50"),
        ("12.50</s>", "12.50"),
        (" 12.50", "12.50"),
        ("a<sep/>b</s_answer>", "a, b"),
        ("</s_answer></s>", ""),
        ("<pad><pad>", ""),
    ],
)
def test_donut_answers_with_the_field_that_it_filled_in(runners: Any, text: str, answer: str) -> None:
    assert runners["donut"]._field(text) == answer


def test_a_donut_that_was_not_made_for_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"no token <s_docvqa>.*task 'ocr'"):
        load(tiny_donut(tmp_path / "reader", questions=False))


def test_pix2struct_draws_with_a_font_of_its_folder(folders: Any, runners: Any, tmp_path: Path) -> None:
    import shutil

    from samples.inputs.lines import load_font

    folder = shutil.copytree(folders["pix2struct"], tmp_path / "with-font")
    shutil.copy(str(load_font("DejaVuSerif-Bold.ttf", 10).path), folder / "Arial.TTF")
    assert abs(ask(load(folder), page())["score"] - ask(runners["pix2struct"], page())["score"]) > 1e-6


def test_udop_reads_the_words_at_their_places(runners: Any) -> None:
    before = ask(runners["udop"], page())["score"]
    for changed in ({"words": ("total", "due", "93.50")}, {"boxes": page()["boxes"][::-1]}):
        assert abs(ask(runners["udop"], page() | changed)["score"] - before) > 1e-6


def test_udop_without_words_has_nothing_to_read(runners: Any) -> None:
    empty: dict[str, Any] = {"words": (), "boxes": np.zeros((0, 4))}
    with pytest.raises(InvalidInputError, match=r"media\.ocr"):
        ask(runners["udop"], page() | empty)
    raw = ask(runners["udop"], page() | empty | {"ocr": {"model": "demo-ocr"}})
    assert (raw["response"], raw["score"], raw["page"]) == ("", 0.0, None)
    several = ask(runners["udop"], page(0) | empty, page(1))
    assert several["page"] == 1
    assert several["warnings"] == ["pages without text were not read, since no OCR is configured (media.ocr): 0"]


def test_a_query_longer_than_the_context_is_refused(runners: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"the prompt has \d+ tokens"):
        ask(runners["donut"], page(), query="x" * 600)
