"""README's curls: every committed request gets the answer that its input has, and a blank input does not."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from samples.inputs.lines import TRAINING_FONTS, load_font
from samples.make_requests import HERE, Sample, samples
from samples.train_demo_asr import DIGITS
from tests.service import ROOT, Service

SAMPLES = {sample.task: sample for sample in samples()}


@pytest.fixture(params=SAMPLES, ids=str)
def sample(request: pytest.FixtureRequest) -> Sample:
    return SAMPLES[request.param]


def first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def test_a_committed_request_is_answered_rightly(service: Service, sample: Sample) -> None:
    body = json.loads((HERE / "requests" / f"{sample.task}.json").read_text(encoding="utf-8"))
    answer = service.post("/inference/infer", body).json()
    assert answer["success"], answer
    assert first(answer["result"][sample.field]) == sample.truth
    provenance = answer["provenance"]
    assert provenance["registered_name"] == sample.model
    assert provenance["commit"]
    assert provenance["digest"].startswith("sha256:")
    assert "warnings" not in answer


def test_the_committed_request_is_what_the_script_makes(sample: Sample) -> None:
    written = json.loads((HERE / "requests" / f"{sample.task}.json").read_text(encoding="utf-8"))
    assert written == sample.body
    assert (HERE / "media" / sample.file).stat().st_size > 0


@pytest.mark.parametrize("task", ["vlm", "ocr", "image-classification"])
def test_the_committed_picture_is_what_the_script_draws(task: str, tmp_path: Any) -> None:
    SAMPLES[task].write(tmp_path / "drawn.png")
    drawn, committed = (
        np.asarray(Image.open(path)) for path in (tmp_path / "drawn.png", HERE / "media" / SAMPLES[task].file)
    )
    assert np.array_equal(drawn, committed)


def test_the_readme_sends_each_of_them() -> None:
    for readme in ("README.md", "README.zh-TW.md"):
        text = (ROOT / readme).read_text(encoding="utf-8")
        for sample in SAMPLES.values():
            assert f"media/{sample.file}" in text, readme
            assert sample.model in text, readme


def test_the_spoken_digits_are_translated_too(service: Service) -> None:
    body = SAMPLES["asr"].body
    body["options"] = {"language": "zh", "task": "translate"}
    answer = service.post("/inference/infer", body).json()
    assert answer["result"]["transcription"] == " ".join(DIGITS[digit] for digit in SAMPLES["asr"].truth)


def test_a_page_of_several_lines_is_read_line_by_line(service: Service) -> None:
    page = Image.new("RGB", (700, 400), "white")
    for top, text in ((60, "Order 4711"), (180, "Room B-17"), (300, "Total 12.50")):
        ImageDraw.Draw(page).text((80, top), text, fill="black", font=load_font(TRAINING_FONTS[0], 40))
    file = io.BytesIO()
    page.save(file, "PNG")
    body = {"task": "ocr", "engine": "transformers", "model_name": "demo-ocr"}
    picture = {"base64": base64.b64encode(file.getvalue()).decode()}
    result = service.post("/inference/infer", {**body, "data": {"image": picture}}).json()["result"]
    assert result["text"].splitlines() == ["Order 4711", "Room B-17", "Total 12.50"]
    assert [round(line["box"][1], -2) for line in result["lines"]] == [100, 200, 300]
