"""Tiny random models that classify videos: real architectures with their processors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

LABELS = ["rolls", "falls", "spins", "waits", "jumps", "fades"]
NAMED: dict[str, Any] = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: place for place, label in enumerate(LABELS)},
}
WIDTH = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "image_size": 32, "patch_size": 16,
}  # fmt: skip
SQUARE = {"size": {"height": 32, "width": 32}, "crop_size": {"height": 32, "width": 32}}


def tiny_videomae(folder: Path) -> Path:
    """Saves a VideoMAE that takes four frames."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEVideoProcessor

    config = VideoMAEConfig(num_frames=4, tubelet_size=2, decoder_hidden_size=16, **WIDTH, **NAMED)
    return _saved(folder, VideoMAEForVideoClassification, config, VideoMAEVideoProcessor(**SQUARE))


def tiny_videomae_pictures(folder: Path) -> Path:
    """Saves a VideoMAE as those of before video processors: with an image processor's settings."""
    import json

    tiny_videomae(folder)
    settings = {"image_processor_type": "VideoMAEImageProcessor", **SQUARE}
    (folder / "video_preprocessor_config.json").unlink()
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def tiny_timesformer(folder: Path) -> Path:
    """Saves a TimeSformer that takes three frames."""
    from transformers import TimesformerConfig, TimesformerForVideoClassification, TimesformerVideoProcessor

    config = TimesformerConfig(num_frames=3, **WIDTH, **NAMED)
    return _saved(folder, TimesformerForVideoClassification, config, TimesformerVideoProcessor(**SQUARE))


def tiny_vivit(folder: Path) -> Path:
    """Saves a ViViT that takes four frames."""
    from transformers import VivitConfig, VivitForVideoClassification, VivitVideoProcessor

    width = {name: value for name, value in WIDTH.items() if name != "patch_size"}
    config = VivitConfig(num_frames=4, tubelet_size=[2, 16, 16], **width, **NAMED)
    return _saved(folder, VivitForVideoClassification, config, VivitVideoProcessor(**SQUARE))


def tiny_vjepa2(folder: Path) -> Path:
    """Saves a V-JEPA 2 that likes eight frames best, and takes two or more."""
    from transformers import VJEPA2Config, VJEPA2ForVideoClassification, VJEPA2VideoProcessor

    config = VJEPA2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, crop_size=32, patch_size=16,
        frames_per_clip=8, pred_hidden_size=48, pred_num_attention_heads=2, pred_num_hidden_layers=1,
        num_pooler_layers=1, **NAMED,
    )  # fmt: skip
    return _saved(folder, VJEPA2ForVideoClassification, config, VJEPA2VideoProcessor(crop_size=32))


def tiny_videoprism(folder: Path) -> Path:
    """Saves a VideoPrism that takes four frames."""
    from transformers import LlavaOnevisionVideoProcessor, VideoPrismForVideoClassification, VideoPrismVisionConfig

    config = VideoPrismVisionConfig(
        hidden_size=32, num_attention_heads=4, intermediate_size=48, image_size=32, num_frames=4,
        tubelet_size=[1, 16, 16], num_spatial_layers=2, num_temporal_layers=2, **NAMED,
    )  # fmt: skip
    processor = LlavaOnevisionVideoProcessor(size={"height": 32, "width": 32}, do_normalize=False)
    return _saved(folder, VideoPrismForVideoClassification, config, processor)


CLASSIFIERS: dict[str, Callable[[Path], Path]] = {
    "videomae": tiny_videomae,
    "videomae-pictures": tiny_videomae_pictures,
    "timesformer": tiny_timesformer,
    "vivit": tiny_vivit,
    "vjepa2": tiny_vjepa2,
    "videoprism": tiny_videoprism,
}
"""Name → what saves such a model into a folder."""


def _saved(folder: Path, kind: Any, config: Any, processor: Any) -> Path:
    from tests.architectures.vision_builders import settle

    settle(kind(config)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
