"""The table of architectures is the installed library's, and leads each to what runs it."""

import importlib

import pytest

from src.inference.engines.transformers import families


def test_the_table_is_what_the_installed_library_maps() -> None:
    assert families._table() == families.draw()


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("T5ForConditionalGeneration", "text-generation"),
        ("LlavaForConditionalGeneration", "vlm"),
        ("LlavaForConditionalGeneration", "ocr"),
        ("LlavaForConditionalGeneration", "document-analysis"),
        ("ViltForQuestionAnswering", "vlm"),
        ("VisionEncoderDecoderModel", "ocr"),
        ("WhisperForConditionalGeneration", "asr"),
        ("Wav2Vec2ForCTC", "asr"),
        ("ParakeetForTDT", "asr"),
        ("ASTForAudioClassification", "audio-classification"),
        ("ResNetForImageClassification", "image-classification"),
        ("LevitForImageClassificationWithTeacher", "image-classification"),
        ("ShieldGemma2ForImageClassification", "image-classification"),
        ("VideoMAEForVideoClassification", "video-analysis"),
        ("VideoLlavaForConditionalGeneration", "video-analysis"),
        ("LayoutLMv3ForQuestionAnswering", "document-analysis"),
    ],
)
def test_an_architecture_can_do_its_task(architecture: str, task: str) -> None:
    assert task in families.tasks_of([architecture])
    assert families.runner_for(task, [architecture])


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("LlamaForCausalLM", "vlm"),
        ("WhisperForConditionalGeneration", "text-generation"),
        ("BertForSequenceClassification", "text-generation"),
        ("SomebodysOwnModel", "text-generation"),
    ],
)
def test_an_architecture_cannot_do_others(architecture: str, task: str) -> None:
    assert task not in families.tasks_of([architecture])
    assert families.runner_for(task, [architecture]) is None


def test_a_causal_model_with_code_of_its_own_generates_text() -> None:
    assert families.tasks_of(["SomebodysForCausalLM"]) == ["text-generation"]


def test_every_runner_exists() -> None:
    for runners in families.RUNNERS.values():
        for family, reference in runners.items():
            assert family in {*families._MAPPINGS, "audio-text", "image-policies"}
            module, _, name = reference.partition(":")
            assert callable(getattr(importlib.import_module(module), name).load)
