"""The rows that every test run asks: one or two of each kind of model; the rest is `python -m tests.architectures`."""

from collections.abc import Iterator

import pytest

from tests.architectures.serving import Serving, serving

# A slow path of the library's own image processors on numpy 2.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

# Named here, so that only a run of these tests imports the library and all rows.
QUICK = [
    ("asr", "Wav2Vec2ForCTC"),
    ("asr", "WhisperForConditionalGeneration"),
    ("audio-classification", "ASTForAudioClassification"),
    ("document-analysis", "LayoutLMForQuestionAnswering"),
    ("document-analysis", "LlavaForConditionalGeneration"),
    ("image-classification", "ResNetForImageClassification"),
    ("image-classification", "ViTForImageClassification"),
    ("ocr", "VisionEncoderDecoderModel"),
    ("text-generation", "LlamaForCausalLM"),
    ("text-generation", "T5ForConditionalGeneration"),
    ("video-analysis", "Qwen2VLForConditionalGeneration"),
    ("video-analysis", "VideoMAEForVideoClassification"),
    ("vlm", "Blip2ForConditionalGeneration"),
    ("vlm", "Idefics3ForConditionalGeneration"),
    ("vlm", "LlavaForConditionalGeneration"),
    ("vlm", "PaliGemmaForConditionalGeneration"),
    ("vlm", "Qwen2VLForConditionalGeneration"),
]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service of these tests."""
    with serving(tmp_path_factory.mktemp("architectures")) as running:
        yield running


@pytest.mark.parametrize(("task", "architecture"), QUICK)
def test_http_answers_as_the_library_does_and_hears_each_change(service: Serving, task: str, architecture: str) -> None:
    from tests.architectures.judging import judged
    from tests.architectures.rows import cases

    (case,) = [case for case in cases(task, quick=True) if case.architecture == architecture]
    row = judged(case, service)
    assert row.problem == ""
    assert row.sensitive == tuple(case.changes)


def test_the_list_of_quick_rows_is_complete() -> None:
    from tests.architectures.rows import cases

    assert sorted((case.task, case.architecture) for case in cases(quick=True)) == sorted(QUICK)
