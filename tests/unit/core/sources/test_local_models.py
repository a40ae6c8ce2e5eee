import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from src.core.sources.local_models import count_parameters, describe
from src.core.sources.staging import SourceRecord, Staged
from src.core.sources.task_guess import architecture_of, guess_task
from tests.unit.core.sources.model_files import safetensors, write

NOW = 1_700_000_000.0
DAY = 86400


def model(folder: Path, config: Mapping[str, Any] | None = None, files: Mapping[str, bytes] | None = None) -> Path:
    content = dict(files or {})
    if config is not None:
        content["config.json"] = json.dumps(config).encode()
    return write(folder, content)


def test_a_staged_model_is_described_for_people_and_programs(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "google_gemma-2b",
        {
            "config.json": b'{"architectures": ["GemmaForCausalLM"]}',
            "model.safetensors": safetensors({"w": ("F16", [600, 1000], 1_200_000)}),
            ".aiml-source.json": b"{}",
            ".cache/huggingface/x": b"x",
        },
    )
    digest = "sha256:" + "0" * 64
    record = SourceRecord(
        "huggingface", "google/gemma-2b", "abc", {"model.safetensors": digest}, NOW - 2 * DAY, ["model.bin"]
    )
    size = sum((folder / name).stat().st_size for name in ("config.json", "model.safetensors"))
    assert describe(Staged("google_gemma-2b", folder, record), NOW) == {
        "name": "google_gemma-2b",
        "size": "1.2 MB",
        "modified": "2 days ago",
        "size_bytes": size,
        "modified_at": NOW - 2 * DAY,
        "files": [
            {"path": "config.json", "size_bytes": 39},
            {"path": "model.safetensors", "size_bytes": size - 39, "digest": digest},
        ],
        "source": "huggingface",
        "source_name": "google/gemma-2b",
        "revision": "abc",
        "left_out": ["model.bin"],
        "architecture": "GemmaForCausalLM",
        "task": "text-generation",
        "parameters": "600K",
        "parameter_count": 600_000,
    }


def test_a_folder_that_somebody_put_there_is_described_by_its_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", {"weights.bin": b"12345", "sub/notes.txt": b"1"})
    os.utime(folder / "weights.bin", (NOW, NOW - 3600))
    os.utime(folder / "sub/notes.txt", (NOW, NOW - 9 * DAY))
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    row = describe(Staged("mine", folder, None), NOW)
    assert [file["path"] for file in row["files"]] == ["sub/notes.txt", "weights.bin"]
    assert (row["size"], row["modified"], row["source"]) == ("6 B", "About an hour ago", "local")
    assert row["revision"] is row["architecture"] is row["task"] is row["parameters"] is None


def test_an_empty_folder_is_described_too(tmp_path: Path) -> None:
    row = describe(Staged("empty", tmp_path, None))
    assert (row["size_bytes"], row["files"]) == (0, [])


@pytest.mark.parametrize(
    ("architectures", "task"),
    [
        ("LlamaForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("LlavaForConditionalGeneration", "vlm"),
        ("Qwen2_5_VLForConditionalGeneration", "vlm"),
        ("WhisperForConditionalGeneration", "asr"),
        ("Wav2Vec2ForCTC", "asr"),
        ("Wav2Vec2ForSequenceClassification", "audio-classification"),
        ("ASTForAudioClassification", "audio-classification"),
        ("WhisperForAudioClassification", "audio-classification"),
        ("VisionEncoderDecoderModel", "ocr"),
        ("GotOcr2ForConditionalGeneration", "ocr"),
        ("VideoLlavaForConditionalGeneration", "video-analysis"),
        ("LlavaNextVideoForConditionalGeneration", "video-analysis"),
        ("VideoMAEForVideoClassification", "video-analysis"),
        ("LayoutLMv3ForQuestionAnswering", "document-analysis"),
        ("LayoutLMv3ForTokenClassification", "token-classification"),
        ("ViTForImageClassification", "image-classification"),
        ("DeiTForImageClassificationWithTeacher", "image-classification"),
        ("DonutSwinForImageClassification", "image-classification"),
        ("PerceiverForImageClassificationFourier", "image-classification"),
        ("DetrForObjectDetection", "object-detection"),
        ("SegformerForSemanticSegmentation", "image-segmentation"),
        ("BertForSequenceClassification", "text-classification"),
        ("BertForMaskedLM", "fill-mask"),
        ("TimesFmModelForPrediction", "forecasting"),
        ("PatchTSTForPrediction", "forecasting"),
        ("BertModel", "embeddings"),
        ("T5ForConditionalGeneration", None),
        ("SomethingNew", None),
    ],
)
def test_the_task_is_guessed_from_the_architecture(architectures: str, task: str | None, tmp_path: Path) -> None:
    assert guess_task(model(tmp_path, {"architectures": [architectures]})) == task


@pytest.mark.parametrize(
    ("config", "files", "task"),
    [
        ({"architectures": ["Gemma3ForConditionalGeneration"], "vision_config": {}}, {}, "vlm"),
        ({"architectures": ["NewForCausalLM"], "vision_config": {}}, {}, "vlm"),
        ({"architectures": ["NewForConditionalGeneration"], "audio_config": {}}, {}, "asr"),
        ({"architecture": "vit_base", "pretrained_cfg": {}}, {}, "image-classification"),
        ({"architectures": ["Qwen3ForCausalLM"]}, {"modules.json": b"[]"}, "embeddings"),
        (None, {"model_index.json": b'{"_class_name": "StableDiffusionPipeline"}'}, "text-to-image"),
        (None, {"qwen.gguf": b""}, "text-generation"),
        (None, {"model.onnx": b""}, None),
        (None, {}, None),
    ],
)
def test_the_task_is_guessed_from_other_fields_and_files(
    config: Mapping[str, Any] | None, files: Mapping[str, bytes], task: str | None, tmp_path: Path
) -> None:
    assert guess_task(model(tmp_path, config, files)) == task


@pytest.mark.parametrize(
    ("card", "task"),
    [
        ("---\nlicense: mit\npipeline_tag: feature-extraction\n---\n# Card", "embeddings"),
        ('---\r\npipeline_tag: "image-text-to-text"\r\n---\r\n', "vlm"),
        ("---\npipeline_tag: automatic-speech-recognition\n---\n", "asr"),
        ("---\npipeline_tag: translation\n---\n", "translation"),
        ("---\npipeline_tag: image-to-text\n---\n", "text-generation"),
        ("# Card\npipeline_tag: translation\n", "text-generation"),
        ("---\nlicense: mit\n---\npipeline_tag: translation\n", "text-generation"),
    ],
)
def test_a_cards_pipeline_tag_counts_more_where_it_says_more(card: str, task: str, tmp_path: Path) -> None:
    folder = model(tmp_path, {"architectures": ["Qwen3ForCausalLM"]}, {"README.md": card.encode()})
    assert guess_task(folder) == task


def test_a_model_that_reads_text_is_that_whatever_its_card_says(tmp_path: Path) -> None:
    card = b"---\npipeline_tag: image-text-to-text\n---\n"
    folder = model(tmp_path, {"architectures": ["GotOcr2ForConditionalGeneration"]}, {"README.md": card})
    assert guess_task(folder) == "ocr"


@pytest.mark.parametrize("config", [b"", b"[]", b"{", b'{"architectures": "Llama"}', b'{"architectures": []}'])
def test_a_config_that_says_nothing_is_no_error(config: bytes, tmp_path: Path) -> None:
    write(tmp_path, {"config.json": config})
    assert architecture_of(tmp_path) is None


def test_parameters_are_counted_over_all_shards(tmp_path: Path) -> None:
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    index = json.dumps({"metadata": {}, "weight_map": shards}).encode()
    files = {name: safetensors({key: ("BF16", [10, 10], 200)}) for key, name in shards.items()}
    write(tmp_path, {**files, "model.safetensors.index.json": index, "consolidated.safetensors": safetensors()})
    assert count_parameters(tmp_path) == 200
    (tmp_path / shards["b"]).unlink()
    assert count_parameters(tmp_path) is None


def test_the_same_weights_under_another_name_count_once(tmp_path: Path) -> None:
    write(tmp_path, {"model.safetensors": safetensors(), "model.fp16.safetensors": safetensors()})
    assert count_parameters(tmp_path) == 4


def test_the_parts_of_a_pipeline_count_together(tmp_path: Path) -> None:
    write(tmp_path, {"unet/model.safetensors": safetensors(), "vae/model.safetensors": safetensors()})
    assert count_parameters(tmp_path) == 8


def test_packed_weights_count_as_what_they_stand_for(tmp_path: Path) -> None:
    tensors = {
        "layer.qweight": ("I32", [8, 100], 3200),
        "layer.qzeros": ("I32", [8, 1], 32),
        "layer.scales": ("F16", [8, 100], 1600),
        "norm.weight": ("F16", [100], 200),
    }
    write(tmp_path, {"model.safetensors": safetensors(tensors)})
    assert count_parameters(tmp_path) == 8 * 100 + 8 + 800 + 100
    model(tmp_path, {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    assert count_parameters(tmp_path) == 8 * 100 * 8 + 100


def test_a_header_alone_is_enough_for_counting(tmp_path: Path) -> None:
    whole = safetensors({"w": ("F32", [1000, 1000], 4_000_000)})
    write(tmp_path, {"model.safetensors": whole[:-4_000_000]})
    os.truncate(tmp_path / "model.safetensors", len(whole))
    assert count_parameters(tmp_path) == 1_000_000


@pytest.mark.parametrize("files", [{}, {"model.bin": b"1"}, {"model.safetensors": b"broken"}])
def test_without_readable_headers_nothing_is_counted(files: Mapping[str, bytes], tmp_path: Path) -> None:
    write(tmp_path, files)
    assert count_parameters(tmp_path) is None


def test_a_changed_file_is_counted_anew(tmp_path: Path) -> None:
    write(tmp_path, {"model.safetensors": safetensors()})
    assert count_parameters(tmp_path) == 4
    write(tmp_path, {"model.safetensors": safetensors({"w": ("U8", [7], 7)})})
    assert count_parameters(tmp_path) == 7
