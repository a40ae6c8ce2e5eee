"""Rows of the task video-analysis: models that talk about a video, and classifiers."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf

from tests.architectures.case import Outcome
from tests.architectures.rows_vision_idefics import smolvlm
from tests.architectures.rows_vision_llava import llava_next_video, llava_onevision, video_llava
from tests.architectures.rows_vision_qwen import qwen2_5_vl, qwen2_vl, qwen3_vl
from tests.architectures.rows_vision_tiles import internvl
from tests.architectures.vision_builders import TINY_VISION, settle
from tests.architectures.vision_cases import classified_video, talked_video, video_by_chat, video_by_text

NAMES = ("rising", "falling", "turning", "still")
LABELS = {
    "num_labels": 4,
    "id2label": dict(enumerate(NAMES)),
    "label2id": {name: number for number, name in enumerate(NAMES)},
}
SIDE = {"height": 32, "width": 32}
SQUARE = {"size": {"shortest_edge": 32}, "crop_size": SIDE}


def classifier(folder: Path, model: Any, processor: Any) -> None:
    """Writes a classifier and what prepares its frames."""
    settle(model).save_pretrained(folder)
    processor.save_pretrained(folder)


def videomae(folder: Path) -> None:
    """VideoMAE."""
    config = hf.VideoMAEConfig(**TINY_VISION, image_size=32, patch_size=8, num_frames=8, **LABELS)
    classifier(folder, hf.VideoMAEForVideoClassification(config), hf.VideoMAEImageProcessor(**SQUARE))


def timesformer(folder: Path) -> None:
    """TimeSformer."""
    config = hf.TimesformerConfig(**TINY_VISION, image_size=32, patch_size=8, num_frames=8, **LABELS)
    classifier(folder, hf.TimesformerForVideoClassification(config), hf.VideoMAEImageProcessor(**SQUARE))


def vivit(folder: Path) -> None:
    """ViViT."""
    config = hf.VivitConfig(**TINY_VISION, image_size=32, tubelet_size=[2, 8, 8], num_frames=8, **LABELS)
    frames = hf.VivitVideoProcessor(size={"shortest_edge": 36}, crop_size=SIDE)
    classifier(folder, hf.VivitForVideoClassification(config), frames)


def vjepa2(folder: Path) -> None:
    """V-JEPA 2."""
    config = hf.VJEPA2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        crop_size=32,
        patch_size=8,
        frames_per_clip=8,
        num_pooler_layers=1,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        **LABELS,
    )
    classifier(folder, hf.VJEPA2ForVideoClassification(config), hf.VJEPA2VideoProcessor(**SQUARE))


def by_frames(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks a classifier with an image processor: all frames, which are as many as it takes."""
    processor = hf.AutoImageProcessor.from_pretrained(folder)
    return ranked(folder, processor(list(data["video"].frames), return_tensors="pt"))


def by_video(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks a classifier with a video processor."""
    processor = hf.AutoVideoProcessor.from_pretrained(folder)
    return ranked(folder, processor(data["video"].frames, return_tensors="pt", do_sample_frames=False))


def ranked(folder: Path, inputs: Any) -> Outcome:
    """Returns labels by falling probability."""
    model = hf.AutoModelForVideoClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        scores = model(**inputs).logits.flatten().softmax(-1)
    order = scores.argsort(descending=True).tolist()
    return Outcome([model.config.id2label[place] for place in order], [float(scores[place]) for place in order])


CASES = [
    talked_video(
        "VideoLlavaForConditionalGeneration", video_llava, video_by_text("USER: <video>\n{prompt} ASSISTANT:")
    ),
    talked_video("LlavaNextVideoForConditionalGeneration", llava_next_video, video_by_chat),
    talked_video("LlavaOnevisionForConditionalGeneration", llava_onevision, video_by_chat),
    talked_video("Qwen2VLForConditionalGeneration", qwen2_vl, video_by_chat, quick=True),
    talked_video("Qwen2_5_VLForConditionalGeneration", qwen2_5_vl, video_by_chat),
    talked_video("Qwen3VLForConditionalGeneration", qwen3_vl, video_by_chat),
    talked_video("SmolVLMForConditionalGeneration", smolvlm, video_by_chat),
    talked_video("InternVLForConditionalGeneration", internvl, video_by_chat),
    classified_video("VideoMAEForVideoClassification", videomae, by_frames, quick=True),
    classified_video("TimesformerForVideoClassification", timesformer, by_frames),
    classified_video("VivitForVideoClassification", vivit, by_video),
    classified_video("VJEPA2ForVideoClassification", vjepa2, by_video),
]
NOT_TRIED: dict[tuple[str, str], str] = {}
