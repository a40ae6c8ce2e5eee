"""Further rows of the task video-analysis: more that read videos, and some that are shown frames as pictures."""

from pathlib import Path
from typing import Any

import transformers as hf
from PIL import Image

from tests.architectures.case import Outcome
from tests.architectures.rows_video import LABELS, by_video, classifier
from tests.architectures.rows_vision_idefics import gemma3, idefics3
from tests.architectures.rows_vision_large import exaone4_5, video_llama3
from tests.architectures.rows_vision_llava import llava
from tests.architectures.rows_vision_more import glm4v, glm46v
from tests.architectures.rows_vision_qwen import qwen3_5, qwen3_vl_moe
from tests.architectures.rows_vision_tiles import mistral3
from tests.architectures.vision_cases import chat, classified_video, talked_video, video_by_chat


def by_pictures(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks a model that has never heard of videos: each frame is a picture."""
    frames = [{"type": "image", "image": Image.fromarray(frame)} for frame in data["video"].frames]
    return chat(folder, frames, data["prompt"])


def videoprism(folder: Path) -> None:
    """VideoPrism: space first, then time."""
    config = hf.VideoPrismVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        image_size=32,
        num_frames=8,
        tubelet_size=[1, 8, 8],
        num_spatial_layers=2,
        num_temporal_layers=1,
        num_auxiliary_layers=1,
        **LABELS,
    )
    frames = hf.LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32}, do_normalize=False)
    classifier(folder, hf.VideoPrismForVideoClassification(config), frames)


CASES = [
    talked_video("VideoLlama3ForConditionalGeneration", video_llama3, video_by_chat),
    talked_video("Exaone4_5_ForConditionalGeneration", exaone4_5, video_by_chat),
    talked_video("Glm4vForConditionalGeneration", glm4v, video_by_chat),
    talked_video("Glm46VForConditionalGeneration", glm46v, video_by_chat),
    talked_video("Qwen3_5ForConditionalGeneration", qwen3_5, video_by_chat),
    talked_video("Qwen3VLMoeForConditionalGeneration", qwen3_vl_moe, video_by_chat),
    talked_video("Idefics3ForConditionalGeneration", idefics3, by_pictures),
    talked_video("LlavaForConditionalGeneration", llava, by_pictures),
    talked_video("Gemma3ForConditionalGeneration", gemma3, by_pictures),
    talked_video("Mistral3ForConditionalGeneration", mistral3, by_pictures),
    classified_video("VideoPrismForVideoClassification", videoprism, by_video),
]
NOT_TRIED = {
    ("video-analysis", "InstructBlipVideoForConditionalGeneration"): (
        "its processor prepares frames and no pictures, and the service loads none of that kind"
    ),
}
