"""Pictures, videos and pages in batches, on tiny models of real architectures: the answers are those of each alone."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stoppable
from tests import tiny_documents, tiny_videos
from tests.architectures.case import GREEDY
from tests.architectures.media import clip, page, picture
from tests.batched import Folders, answers, check, same
from tests.tiny_vision import tiny_llava

pytestmark = pytest.mark.xdist_group("torch")

SIZES = ((64, 64), (64, 64), (96, 48), (48, 80), (64, 64))
PROMPTS = ("what is in the picture?", "how many stars are there in it, and where?", "why?", "what is it?", "colour?")
QUESTIONS = [
    {"images": [picture(seed, *size)], "prompt": prompt}
    for seed, (size, prompt) in enumerate(zip(SIZES, PROMPTS, strict=True))
]
EXACT = {"max_new_tokens": 8, "logprobs": True}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("pictures"))


def rows(module: str, name: str) -> Any:
    """What builds a model, from the rows of the matrix of architectures."""
    from importlib import import_module

    return getattr(import_module(f"tests.architectures.rows_{module}"), name)


@pytest.mark.parametrize(
    ("module", "name", "together"),
    [
        ("vision_llava", "llava", 5),
        ("vision_idefics", "idefics3", 5),  # pictures in tiles, as many as the picture asks for
        ("vision_tiles", "pixtral", 5),  # pictures of any size
        ("vision_qwen", "qwen2_vl", 5),  # positions in time, height and width
        ("vision_blip", "blip2", 5),
        ("vision_blip", "git", 5),
        ("ocr", "florence2", 5),
        ("vision_large", "vilt", 4),  # the smallest picture would be mostly padding
        ("vision_more", "kosmos2", 2),  # counts its padding: those with prompts of one length alone
        ("vision_rest", "emu3", 3),  # does not know its padding from its pictures: those of one size alone
    ],
)
def test_questions_about_pictures(load: Folders, module: str, name: str, together: int) -> None:
    questions = [*QUESTIONS[:-1], {**QUESTIONS[-1], "prompt": PROMPTS[0]}]
    check(load(rows(module, name), "vlm"), questions, dict(GREEDY), together=together)


def test_several_pictures_and_one(load: Folders) -> None:
    several = {"images": [picture(7), picture(8, 32, 96)], "prompt": "what changed?"}
    check(load(tiny_llava, "vlm"), [QUESTIONS[0], several, QUESTIONS[1]], dict(GREEDY), together=3)


def test_florences_task_tokens_beside_questions(load: Folders) -> None:
    asked = [*QUESTIONS[:2], {**QUESTIONS[2], "prompt": "<OD>"}, {**QUESTIONS[3], "prompt": "<OD>"}]
    check(load(rows("ocr", "florence2"), "vlm"), asked, dict(GREEDY), together=2)


@pytest.mark.parametrize(("build", "together"), [(rows("vision_qwen", "qwen2_vl"), 3), (tiny_llava, 3)])
def test_questions_about_videos(load: Folders, build: Any, together: int) -> None:
    asked = [
        {"video": video(seed, frames), "prompt": prompt}
        for seed, frames, prompt in ((1, 4, PROMPTS[0]), (2, 6, PROMPTS[1]), (3, 4, PROMPTS[2]))
    ]
    check(load(build, "video-analysis"), asked, dict(GREEDY), together=together)


@pytest.mark.parametrize(("name", "frames"), [("videomae", 4), ("timesformer", 3), ("vjepa2", 8)])
def test_classified_videos(load: Folders, name: str, frames: int) -> None:
    asked = [{"video": video(seed, frames, *size), "prompt": None} for seed, size in enumerate(SIZES)]
    check(load(tiny_videos.CLASSIFIERS[name], "video-analysis"), asked, {}, together=5)


def video(seed: int, frames: int, *size: int) -> dict[str, Any]:
    shown = clip(seed, frames, *size).frames
    times = [place / 8 for place in range(frames)]
    facts = {"timestamps": times, "indices": list(range(frames)), "total_frames": frames, "fps": 8.0}
    return {"frames": shown, **facts, "duration": frames / 8}


LINES = [page(text, width, 32) for text, width in (("total 42 paid", 128), ("Kiwi 7", 64), ("a b", 128), ("x", 96))]


@pytest.mark.parametrize(("name", "together"), [("trocr", 5), ("donut", 5), ("florence2", 5)])
def test_pictures_that_are_read(load: Folders, name: str, together: int) -> None:
    asked = [{"images": [line], "prompt": None} for line in LINES[:3]] + [{"images": LINES[2:], "prompt": None}]
    check(load(rows("ocr", name), "ocr"), asked, EXACT, together=together)


def test_pictures_that_a_model_is_asked_to_read(load: Folders) -> None:
    asked = [
        {"images": [line], "prompt": prompt} for line, prompt in zip(LINES, (None, "Read!", None, "?"), strict=True)
    ]
    check(load(tiny_llava, "ocr"), asked, EXACT, together=4)


def test_lines_whose_columns_are_classified_go_together_where_they_are_equally_wide(load: Folders) -> None:
    import transformers as hf

    def build(folder: Path) -> None:
        recogniser, model = rows("ocr_lines", "recogniser"), rows("ocr_lines", "tiny_v6")
        recogniser(model, hf.PPOCRV6SmallRecImageProcessor, 1.5)(folder)

    wide = page("a line that is much wider than the others are", 900, 32)
    asked = [{"images": [line], "prompt": None} for line in (LINES[0], wide, *LINES[1:])]
    check(load(build, "ocr"), asked, {"logprobs": True, "segmentation": "none"}, together=4)


def document(*seeds: int, query: str = "what is the total?", words: int = 3) -> dict[str, Any]:
    return {"query": query, "pages": [leaf(seed, words + seed) for seed in seeds]}


def leaf(seed: int, words: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 900, (words, 2))
    boxes = np.concatenate([corners, corners + rng.integers(5, 100, corners.shape)], axis=1).astype(np.int32)
    said = tuple(f"word{place}" for place in range(words))
    shades = rng.integers(0, 255, (10, 8, 3), dtype=np.uint8)
    image = np.kron(shades, np.ones((12, 12, 1), np.uint8))
    return {"number": seed, "image": image, "words": said, "boxes": boxes, "has_text": True}


DOCUMENTS = [document(1), document(2, 3, query="who paid it?"), document(4, words=30), document(5, query="how?")]


@pytest.mark.parametrize(
    ("build", "together"), [(tiny_documents.tiny_layoutlm, 7), (tiny_documents.tiny_layoutlmv3, 14)]
)
def test_documents_whose_words_are_marked(load: Folders, build: Any, together: int) -> None:
    # That of more than thirty words takes several windows, which go with those of the others.
    check(load(build, "document-analysis"), DOCUMENTS, {}, together=together)


@pytest.mark.parametrize(
    ("build", "together"),
    [
        (tiny_llava, 5),
        (tiny_documents.tiny_donut, 2),  # its decoder is told the question: those that are equally long
        (tiny_documents.tiny_pix2struct, 5),
        (tiny_documents.tiny_udop, 1),  # puts its pictures behind the padding
    ],
)
def test_documents_that_are_looked_at(load: Folders, build: Any, together: int) -> None:
    check(load(build, "document-analysis"), DOCUMENTS, {"max_new_tokens": 6}, together=together)


def test_a_request_that_the_model_cannot_take_fails_alone(load: Folders) -> None:
    engine, runner = load(rows("vision_blip", "blip2"), "vlm")()
    two = {"images": [picture(1), picture(2)], "prompt": "which?"}
    found, _ = answers(engine, runner, [QUESTIONS[0], two, QUESTIONS[1]], dict(GREEDY))
    assert isinstance(found[1], InvalidInputError)
    assert "looks at one picture" in str(found[1])
    same([found[0], found[2]], [runner.run(each, dict(GREEDY)) for each in QUESTIONS[:2]])


def test_a_document_that_nobody_could_read_fails_alone(load: Folders) -> None:
    empty = {"query": "what?", "pages": [{**leaf(1, 0), "words": (), "boxes": np.zeros((0, 4))}]}
    for build in (tiny_documents.tiny_layoutlm, tiny_documents.tiny_udop):
        engine, runner = load(build, "document-analysis")()
        found, _ = answers(engine, runner, [empty, DOCUMENTS[0]], {"max_new_tokens": 4})
        assert isinstance(found[0], InvalidInputError)
        same(found[1], runner.run(DOCUMENTS[0], {"max_new_tokens": 4}))


@pytest.mark.parametrize(
    ("task", "request_of"),
    [
        ("vlm", lambda: QUESTIONS[0]),
        ("ocr", lambda: {"images": [LINES[0]], "prompt": None}),
        ("document-analysis", lambda: DOCUMENTS[0]),
    ],
)
def test_which_requests_may_go_together_and_that_they_are_stopped(load: Folders, task: str, request_of: Any) -> None:
    engine, runner = load(tiny_llava, task)()
    key = partial(engine.batch_key, runner, request_of())
    assert key({"do_sample": False}) == key({"do_sample": True}) is not None
    assert key({"num_beams": 2}) is None
    assert key({"do_sample": True, "seed": 3}) is None
    assert key({"do_sample": False, "seed": 3}) is not None
    with pytest.raises(CancelledError), stoppable(lambda: True):
        engine.infer_batch(runner, [request_of(), request_of()], {})
