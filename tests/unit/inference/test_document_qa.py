"""Span extraction on tiny LayoutLMs: the direct call's answer and score, windows, pages, refusals."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.core.errors import CancelledError, InvalidInputError, ModelLoadError
from src.inference.engines.base import stoppable
from tests.tiny_documents import tiny_layoutlm, tiny_layoutlm_bytes, tiny_layoutlmv2_config, tiny_layoutlmv3

pytestmark = pytest.mark.xdist_group("torch")

QUERY = "What is due?"
WORDS = ["Invoice", "A-17", "total", "due", "is", "12.50", "by", "May", "3"]
LONGEST = 32


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {
        "layoutlm": tiny_layoutlm(base / "layoutlm"),
        "layoutlm-bytes": tiny_layoutlm_bytes(base / "layoutlm-bytes"),
        "layoutlmv3": tiny_layoutlmv3(base / "layoutlmv3"),
        "layoutlmv3-words": tiny_layoutlmv3(base / "layoutlmv3-words", pictures=False),
    }


@pytest.fixture(scope="module")
def runners(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: load(folder) for name, folder in folders.items()}


@pytest.fixture(params=["layoutlm", "layoutlm-bytes", "layoutlmv3", "layoutlmv3-words"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(folder: Path) -> Any:
    from src.inference.engines.transformers.document_qa import SpanRunner

    return SpanRunner.load("tiny", folder, device="cpu", dtype="auto", trust_remote_code=False)


def page(number: int = 0, words: Sequence[str] = WORDS, **changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(number + 1)
    corners = rng.integers(0, 900, (len(words), 2))
    made = {
        "number": number,
        "words": tuple(words),
        "boxes": np.concatenate([corners, corners + rng.integers(5, 100, corners.shape)], axis=1).astype(np.int32),
        "has_text": bool(words),
        "image": rng.integers(0, 255, (80, 60, 3), dtype=np.uint8),
    }
    return made | changed


def ask(runner: Any, *pages: dict[str, Any], query: str = QUERY, **options: Any) -> Any:
    return runner.run({"query": query, "pages": list(pages)}, options)


def direct(folder: Path, page: dict[str, Any], query: str = QUERY) -> tuple[list[int], Any, Any]:
    """Returns each page token's word, and its logits, by one call of the library."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForDocumentQuestionAnswering, AutoTokenizer

    model = AutoModelForDocumentQuestionAnswering.from_pretrained(folder).eval()
    spaced = {"add_prefix_space": True} if folder.name == "layoutlm-bytes" else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, **spaced)
    words, boxes = list(page["words"]), page["boxes"].tolist()
    if model.config.model_type == "layoutlm":
        encoding = tokenizer(query.split(), words, is_split_into_words=True, return_tensors="pt")
        parts, places = encoding.sequence_ids(0), encoding.word_ids(0)
        boxed = [boxes[place] if part == 1 else [0, 0, 0, 0] for part, place in zip(parts, places, strict=True)]
        for place in (encoding.input_ids[0] == tokenizer.sep_token_id).nonzero().flatten().tolist():
            boxed[place] = [1000, 1000, 1000, 1000]
        encoding["bbox"] = torch.tensor([boxed])
    else:
        encoding = tokenizer(query, words, boxes=boxes, return_tensors="pt")
        parts, places = encoding.sequence_ids(0), encoding.word_ids(0)
        if (folder / "processor_config.json").is_file():
            pictures = AutoImageProcessor.from_pretrained(folder, apply_ocr=False)
            encoding["pixel_values"] = pictures(page["image"], return_tensors="pt").pixel_values
    with torch.inference_mode():
        output = model(**encoding)
    kept = [place for place, part in enumerate(parts) if part == 1]
    return [places[place] for place in kept], output.start_logits[0, kept], output.end_logits[0, kept]


def likeliest(words: Sequence[int], starts: Any, ends: Any) -> tuple[int, int, float]:
    """Returns first and last word and the score of the best span, by trying all."""
    first, last = starts.double().softmax(-1).tolist(), ends.double().softmax(-1).tolist()
    spans = [(a, b) for a in range(len(words)) for b in range(a, min(a + LONGEST, len(words)))]
    best = max(spans, key=lambda span: first[span[0]] * last[span[1]])
    return words[best[0]], words[best[1]], first[best[0]] * last[best[1]]


def test_answer_and_score_are_the_direct_calls(runners: Any, folders: Any, kind: str) -> None:
    answer = ask(runners[kind], page())
    first, last, score = likeliest(*direct(folders[kind], page()))
    assert answer["response"] == " ".join(WORDS[first : last + 1])
    assert answer["score"] == pytest.approx(score, rel=1e-4)
    assert answer["page"] == 0


def test_the_box_holds_all_words_of_the_answer_and_no_more(runners: Any, folders: Any, kind: str) -> None:
    first, last, _ = likeliest(*direct(folders[kind], page()))
    boxes = page()["boxes"][first : last + 1]
    assert ask(runners[kind], page())["box"] == [
        boxes[:, 0].min(), boxes[:, 1].min(), boxes[:, 2].max(), boxes[:, 3].max(),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changed",
    [
        {"words": ["Receipt", *WORDS[1:]]},
        {"boxes": page()["boxes"][::-1]},
        {"image": page(5)["image"]},
    ],
    ids=["word", "boxes", "picture"],
)
def test_another_page_has_another_score(runners: Any, kind: str, changed: dict[str, Any]) -> None:
    before, after = ask(runners[kind], page()), ask(runners[kind], page(**changed))
    blind = kind != "layoutlmv3" and "image" in changed
    assert (abs(after["score"] / before["score"] - 1) > 1e-3) != blind


def test_another_query_has_another_score(runners: Any, kind: str) -> None:
    before, after = (ask(runners[kind], page(), query=query) for query in (QUERY, "Who pays?"))
    assert abs(after["score"] / before["score"] - 1) > 1e-3


# ---------------------------------------------------------------------- more than the model reads at once


def windowed(folder: Path, page: dict[str, Any], query: str, window: int, overlap: int) -> tuple[list[int], Any, Any]:
    """Returns what `direct` does for a page of one-token words that is read in windows.

    Each word's logits are those of the window in which it is farther from the edge.
    """
    import torch

    count, logits = len(page["words"]), []
    begins = [0]
    while begins[-1] + window < count:
        begins.append(begins[-1] + window - overlap)
    for begin in begins:
        part = page | {name: page[name][begin : begin + window] for name in ("words", "boxes")}
        logits.append(direct(folder, part, query)[1:])
    starts, ends = torch.zeros(count), torch.zeros(count)
    for word in range(count):
        inside = [place for place, begin in enumerate(begins) if begin <= word < min(begin + window, count)]
        best = max(inside, key=lambda place: (min(word - begins[place], begins[place] + window - word - 1), place))
        starts[word] = logits[best][0][word - begins[best]]
        ends[word] = logits[best][1][word - begins[best]]
    return list(range(count)), starts, ends


def test_a_page_longer_than_the_window_is_read_in_overlapping_windows(runners: Any, folders: Any) -> None:
    letters = [chr(ord("a") + place * 7 % 26) for place in range(150)]
    query, window = "a b", 64 - 2 - 3
    answer = ask(runners["layoutlm"], page(words=letters), query=query)
    reading = windowed(folders["layoutlm"], page(words=letters), query, window, window // 2)
    first, last, score = likeliest(*reading)
    assert answer["response"] == " ".join(letters[first : last + 1])
    assert answer["score"] == pytest.approx(score, rel=1e-4)


@pytest.mark.parametrize("place", [3, 40, 90, 149])
def test_words_anywhere_on_a_long_page_count(runners: Any, kind: str, place: int) -> None:
    words = [WORDS[number % len(WORDS)] for number in range(150)]
    before = ask(runners[kind], page(words=words))
    words[place] = "xyz"
    assert ask(runners[kind], page(words=words))["score"] != pytest.approx(before["score"], rel=1e-6)


def test_a_query_that_leaves_no_room_for_the_page_is_refused(runners: Any, kind: str) -> None:
    with pytest.raises(InvalidInputError, match=r"the query has \d+ tokens and the model reads 64 at once") as caught:
        ask(runners[kind], page(), query="a b c d e f " * 9)
    assert caught.value.details["window_tokens"] == 64


@pytest.mark.parametrize(("bound", "tokens"), [(1, 1), (4, 4)])
def test_max_new_tokens_bounds_the_answer(runners: Any, bound: int, tokens: int) -> None:
    letters = list("abcdefghijklmnopqrstuvwxyz")
    answers = [ask(runners["layoutlm"], page(words=letters), query=letter, max_new_tokens=bound) for letter in letters]
    assert max(len(answer["response"].split()) for answer in answers) <= tokens


# ---------------------------------------------------------------------- several pages


def test_the_surest_page_wins_and_pages_share_one_probability(runners: Any, folders: Any, kind: str) -> None:
    import torch

    pages = [page(2), page(7, words=["Yes"]), page(9, words=WORDS[::-1])]
    read = [direct(folders[kind], each) for each in pages]
    starts, ends = (torch.cat([part[place] for part in read]).double().log_softmax(-1) for place in (1, 2))
    sure, begin = {}, 0
    for each, (words, *_) in zip(pages, read, strict=True):
        stop = begin + len(words)
        sums = (starts[begin:stop, None] + ends[begin:stop]).triu().tril(LONGEST - 1)
        sure[each["number"]] = math.exp(max(sums[sums != 0].tolist()))
        begin = stop
    answer = ask(runners[kind], *pages)
    assert answer["page"] == max(sure, key=lambda number: sure[number])
    assert answer["score"] == pytest.approx(max(sure.values()), rel=1e-4)
    candidates = {found["page"]: found["score"] for found in answer["metadata"]["candidates"]}
    assert candidates == pytest.approx(sure, rel=1e-4)
    assert answer["metadata"]["pages"] == [2, 7, 9]


def test_the_order_of_pages_does_not_matter(runners: Any, kind: str) -> None:
    pages = [page(0), page(1, words=WORDS[::-1])]
    there, back = ask(runners[kind], *pages), ask(runners[kind], *pages[::-1])
    assert (there["response"], there["page"]) == (back["response"], back["page"])


def test_at_most_ten_candidates_are_told(runners: Any) -> None:
    answer = ask(runners["layoutlm"], *(page(number) for number in range(14)))
    assert len(answer["metadata"]["candidates"]) == 10
    assert len(answer["metadata"]["pages"]) == 14


# ---------------------------------------------------------------------- pages without words


def test_a_document_without_any_words_is_refused_unless_it_was_read(runners: Any, kind: str) -> None:
    with pytest.raises(InvalidInputError, match=r"has no text, and no OCR is configured .*media\.ocr"):
        ask(runners[kind], page(words=[]), page(1, words=[]))


def test_a_page_on_which_ocr_found_nothing_has_no_answer(runners: Any, kind: str) -> None:
    answer = ask(runners[kind], page(words=[], ocr={"model": "demo-ocr"}))
    assert (answer["response"], answer["score"], answer["page"], answer["box"]) == ("", 0.0, None, None)
    assert answer["warnings"] == []


def test_pages_that_nobody_could_read_are_told_of(runners: Any) -> None:
    answer = ask(runners["layoutlm"], page(0), page(1, words=[]), page(2, words=[], ocr={"model": "demo-ocr"}))
    assert answer["page"] == 0
    assert answer["warnings"] == ["pages without text were not read, since no OCR is configured (media.ocr): 1"]


# ---------------------------------------------------------------------- odd input, options, refusals


def test_boxes_with_corners_in_any_order_or_off_the_page_are_put_right(runners: Any, kind: str) -> None:
    boxes = page()["boxes"]
    odd = page(boxes=boxes[:, [2, 3, 0, 1]])
    assert ask(runners[kind], odd)["score"] == pytest.approx(ask(runners[kind], page())["score"])
    outside = boxes.copy()
    outside[0] = [-5, 10, 2000, 20]
    assert ask(runners[kind], page(boxes=outside))["score"] > 0


def test_words_without_tokens_do_no_harm(runners: Any, kind: str) -> None:
    assert ask(runners[kind], page(words=["", "12.50", ""]))["response"].strip() == "12.50"


def test_options_of_other_tasks_are_told_of(runners: Any) -> None:
    told = ask(runners["layoutlm"], page(), temperature=0.5, num_beams=2, logprobs=True)["warnings"]
    assert [warning.split("'")[1] for warning in told] == ["temperature", "num_beams", "logprobs"]


def test_reading_stops_once_nobody_waits(runners: Any, kind: str) -> None:
    with stoppable(lambda: True), pytest.raises(CancelledError):
        ask(runners[kind], page())


def test_warms_up_and_says_what_it_wants(runners: Any, kind: str) -> None:
    runners[kind].warm_up()
    assert runners[kind].media == {"needs_words": True, "needs_images": kind == "layoutlmv3"}


def test_layoutlmv2_without_its_library_says_what_is_missing(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({}, tiny_layoutlmv2_config(tmp_path / "v2") / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match="detectron2"):
        load(tmp_path / "v2")
