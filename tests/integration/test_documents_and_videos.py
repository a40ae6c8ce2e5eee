"""Documents and videos over HTTP: real files through decoder, worker and envelope; what the samples get right."""

import base64
import io
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pypdfium2 as pdfium
import pytest

from samples.inputs.forms import PAGE, Form, Word, draw_form, question, render, write_pdf
from samples.inputs.motions import MOTIONS, Clip, draw_clip, exchanges, still_clip, write_video
from samples.training import share_right
from tests.integration.conftest import manager_of
from tests.service import ROOT, Service, running_service
from tests.tiny_documents import tiny_layoutlm, tiny_pix2struct
from tests.tiny_videos import LABELS, tiny_videomae

pytestmark = pytest.mark.xdist_group("documents-and-videos")

SAMPLES = ROOT / "samples"
RNG = random.Random("over http")
FORMS = [draw_form(RNG, held_out=True) for _ in range(20)]
KEYS = [RNG.choice(list(form.answers)) for form in FORMS]
QUERIES = [question(key, RNG) for key in KEYS]
TRUTHS = [form.answers[key] for form, key in zip(FORMS, KEYS, strict=True)]
CLIPS = [draw_clip(RNG, held_out=True, motion=motion) for motion in MOTIONS for _ in range(2)]
ASKED = [exchanges(clip, RNG) for clip in CLIPS]
BLANK = Form()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service with tiny random models registered, and no OCR."""
    base = tmp_path_factory.mktemp("documents-and-videos")
    built = {
        "words": (tiny_layoutlm(base / "words", positions=386), "document-analysis"),
        "pictures": (tiny_pix2struct(base / "pictures"), "document-analysis"),
        "classifier": (tiny_videomae(base / "classifier"), "video-analysis"),
    }
    register(base / "data", built)
    with running_service(base / "data", AIML_MEDIA__OCR="none") as running:
        yield running


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service for sample models, which reads scanned pages with `demo-ocr`."""
    with running_service(tmp_path_factory.mktemp("samples-of-media") / "data", AIML_MEDIA__OCR="demo-ocr") as running:
        yield running


@pytest.fixture(scope="module")
def reader(samples: Service) -> Service:
    """The service with the sample that answers questions about documents."""
    register(samples.data_dir, {"demo-document": (SAMPLES / "demo-document", "document-analysis")})
    return samples


@pytest.fixture(scope="module")
def scanner(reader: Service) -> Service:
    """The same with the sample that reads scanned pages."""
    register(reader.data_dir, {"demo-ocr": (SAMPLES / "demo-ocr", "ocr")})
    return reader


@pytest.fixture(scope="module")
def watcher(samples: Service) -> Service:
    """The service with the sample that answers questions about videos."""
    register(samples.data_dir, {"demo-video": (SAMPLES / "demo-video", "video-analysis")})
    return samples


def register(data_dir: Path, built: dict[str, tuple[Path, str]]) -> None:
    data_dir.mkdir(exist_ok=True)
    models = manager_of(data_dir)
    for name, (folder, task) in built.items():
        models.register_model_to_mlflow(name, "local", folder, {"task": task, "engine": "transformers"})
    models.close()


def infer(service: Service, task: str, model: str, data: dict[str, Any], **options: Any) -> Any:
    body = {"task": task, "engine": "transformers", "model_name": model, "data": data, "options": options}
    return service.post("/inference/infer", body).json()


def about(service: Service, model: str, document: Any, query: str = "What is due?", **options: Any) -> Any:
    return infer(service, "document-analysis", model, {"document": document, "query": query}, **options)


def watch(service: Service, model: str, video: str, prompt: str | None = None, **options: Any) -> Any:
    data = {"video": video} | ({} if prompt is None else {"prompt": prompt})
    return infer(service, "video-analysis", model, data, **options)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def pdf_of(*forms: Form) -> str:
    """Returns forms as the pages of one PDF."""
    whole = pdfium.PdfDocument.new()
    for form in forms:
        with pdfium.PdfDocument(write_pdf(form)) as part:
            whole.import_pages(part)
    file = io.BytesIO()
    whole.save(file)
    whole.close()
    return encoded(file.getvalue())


def picture_of(form: Form) -> str:
    file = io.BytesIO()
    render(form, "STIXGeneral.ttf").save(file, "PNG")
    return encoded(file.getvalue())


def video_of(clip: Clip, folder: Path) -> str:
    write_video(clip, folder / "clip.mp4")
    return encoded((folder / "clip.mp4").read_bytes())


# ---------------------------------------------------------------------- documents, by models that know nothing


def test_a_pdf_is_answered_with_words_of_one_of_its_pages(service: Service) -> None:
    answer = about(service, "words", pdf_of(*FORMS[:3]))
    result = answer["result"]
    assert result["answer"] in " ".join(FORMS[result["page"]].texts)
    assert 0 < result["score"] < 1
    assert all(0 <= edge <= 1000 for edge in result["box"])
    assert result["metadata"]["pages"] == [0, 1, 2]
    assert answer["provenance"]["registered_name"] == "words"


def test_the_box_stands_where_the_words_are(service: Service) -> None:
    form = Form([Word("total", (100, 200, 150, 212), 12), Word("12.50", (300, 600, 340, 612), 12)])
    result = about(service, "words", pdf_of(form), max_new_tokens=5)["result"]
    word = next(word for word in form.words if word.text in result["answer"].split())
    left, top = 1000 * word.box[0] / PAGE[0], 1000 * word.box[1] / PAGE[1]
    assert result["box"][:2] == pytest.approx([left, top], abs=8)


def test_option_pages_chooses(service: Service) -> None:
    result = about(service, "words", pdf_of(*FORMS[:3]), pages=[2])["result"]
    assert (result["page"], result["metadata"]["pages"]) == (2, [2])


def test_a_page_that_is_not_there_is_refused(service: Service) -> None:
    answer = about(service, "words", pdf_of(*FORMS[:3]), pages=[3])
    assert (answer["error_type"], "no page 3" in answer["error"]) == ("ValueError", True)


def test_documents_in_a_list_are_pages_that_follow_one_another(service: Service) -> None:
    one, other = (pdf_of(form) for form in FORMS[:2])
    there = about(service, "words", pdf_of(*FORMS[:2]))["result"]
    assert about(service, "words", [one, other])["result"] == there


@pytest.mark.parametrize("document", [pdf_of(BLANK), picture_of(FORMS[0])], ids=["empty PDF", "picture"])
def test_a_page_without_text_is_refused_where_no_ocr_is_configured(service: Service, document: str) -> None:
    answer = about(service, "words", document)
    assert answer["error_type"] == "ValueError"
    assert "media.ocr" in answer["error"]
    assert "data.document" in answer["error"]


@pytest.mark.parametrize("document", [pdf_of(FORMS[0]), picture_of(FORMS[0])], ids=["PDF", "picture"])
def test_a_model_that_sees_pages_needs_no_words(service: Service, document: str) -> None:
    result = about(service, "pictures", document, max_new_tokens=4)["result"]
    assert isinstance(result["answer"], str)
    assert (result["page"], result["box"]) == (0, None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"document": "JVBERi0="}, "missing field 'query'"),
        ({"query": "What?"}, "missing field 'document'"),
        ({"document": "JVBERi0=", "query": ""}, "field 'query' is empty"),
    ],
)
def test_input_that_cannot_be_is_a_400(service: Service, data: dict[str, Any], message: str) -> None:
    body = {"task": "document-analysis", "engine": "transformers", "model_name": "words", "data": data}
    response = service.post("/inference/infer", body)
    assert (response.status_code, message in response.json()["error"]) == (400, True)


# ---------------------------------------------------------------------- videos, by a model that knows nothing


def test_a_video_gets_labels_scores_and_frames(service: Service, tmp_path: Path) -> None:
    result = watch(service, "classifier", video_of(CLIPS[0], tmp_path))["result"]
    assert result["analysis"] == result["labels"][0]
    assert set(result["labels"]) < set(LABELS)
    assert result["scores"] == sorted(result["scores"], reverse=True)
    frames = result["frames"]
    assert (frames["count"], frames["indices"][0], frames["indices"][-1]) == (4, 0, len(CLIPS[0].frames) - 1)
    assert frames["timestamps"] == pytest.approx([index / CLIPS[0].fps for index in frames["indices"]], abs=0.02)


def test_a_classifier_told_what_to_look_for_says_that_it_has_no_effect(service: Service, tmp_path: Path) -> None:
    answer = watch(service, "classifier", video_of(CLIPS[0], tmp_path), "Does it roll?", num_frames=9)
    assert [warning.split("'")[1] for warning in answer["warnings"]] == ["prompt", "num_frames"]


# ---------------------------------------------------------------------- what the samples get right


def replies(service: Service, documents: Sequence[str]) -> list[str]:
    answers = (about(service, "demo-document", *pair) for pair in zip(documents, QUERIES, strict=True))
    return [answer["result"]["answer"] for answer in answers]


def test_held_out_forms_as_pdf_are_read(reader: Service, figure: Callable[[str], None]) -> None:
    right = share_right(replies(reader, [pdf_of(form) for form in FORMS]), TRUTHS)
    figure(f"{right:.1%} of {len(FORMS)} questions about PDFs answered exactly over HTTP")
    assert right >= 0.9


@pytest.mark.slow
def test_held_out_forms_as_pictures_are_read_by_way_of_ocr(scanner: Service, figure: Callable[[str], None]) -> None:
    right = share_right(replies(scanner, [picture_of(form) for form in FORMS]), TRUTHS)
    figure(f"{right:.1%} of {len(FORMS)} questions about scanned forms answered exactly over HTTP")
    assert right >= 0.5


def test_the_page_that_holds_the_field_is_found(reader: Service, figure: Callable[[str], None]) -> None:
    hits = []
    for place, (form, query) in enumerate(zip(FORMS, QUERIES, strict=True)):
        others = [other for other in FORMS if KEYS[place] not in other.answers][:2]
        pages = [*others[:1], form, *others[1:]]
        result = about(reader, "demo-document", pdf_of(*pages), query)["result"]
        hits.append((result["answer"], result["page"]) == (TRUTHS[place], pages.index(form)))
    figure(f"{sum(hits) / len(hits):.1%} of {len(hits)} fields found on their page among three")
    assert sum(hits) / len(hits) >= 0.9


def test_an_empty_page_has_no_answer(scanner: Service) -> None:
    result = about(scanner, "demo-document", pdf_of(BLANK))["result"]
    assert (result["answer"], result["score"], result["page"]) == ("", 0.0, None)


@pytest.mark.parametrize("subject", ["motion", "shape", "colour"])
def test_held_out_clips_are_understood(
    watcher: Service, tmp_path: Path, subject: str, figure: Callable[[str], None]
) -> None:
    questions = [asked[subject] for asked in ASKED]
    said = [
        watch(watcher, "demo-video", video_of(clip, tmp_path), exchange.prompt, temperature=0.0)["result"]["analysis"]
        for clip, exchange in zip(CLIPS, questions, strict=True)
    ]
    right = share_right([text.strip() for text in said], [exchange.reply for exchange in questions])
    figure(f"{right:.1%} of {len(CLIPS)} questions about the {subject} in an MP4 answered exactly over HTTP")
    # So few clips, and what the encoder leaves of small shapes: the exam of all is in tests/samples.
    assert right >= (0.8 if subject == "shape" else 0.9)


def test_clips_that_show_nothing_are_guessed(watcher: Service, tmp_path: Path) -> None:
    rng = random.Random("blank")
    blank = [Clip(still_clip(rng, 12), (), 8, clip.motion, clip.shape, clip.colour) for clip in CLIPS]
    said = [
        watch(watcher, "demo-video", video_of(clip, tmp_path), "What happens?", temperature=0.0)["result"]["analysis"]
        for clip in blank
    ]
    assert share_right([text.strip() for text in said], [MOTIONS[clip.motion] for clip in CLIPS]) <= 0.2
