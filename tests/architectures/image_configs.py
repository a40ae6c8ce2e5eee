"""Tiny configs of image classifiers, and the image processors that their library pairs them with."""

from collections.abc import Mapping
from typing import Any

from tests.architectures.vision_builders import TINY_VISION

SIDE = {"height": 32, "width": 32}
LARGER = {"height": 64, "width": 64}
_FIFTY_SIX = {"height": 56, "width": 56}
SQUARE = {"size": SIDE}
SHORTEST = {"size": {"shortest_edge": 32}}
CROPPED = {"size": {"shortest_edge": 36}, "crop_size": SIDE}
CROPPED_LARGER = {"size": {"shortest_edge": 72}, "crop_size": LARGER}
# Every third value, red, green and blue: the colours that ImageGPT knows.
_CLUSTERS = [[red, green, blue] for red in (-1.0, 0.0, 1.0) for green in (-1.0, 0.0, 1.0) for blue in (-1.0, 0.0, 1.0)]

_PATCHES = {**TINY_VISION, "image_size": 32, "patch_size": 8}
_STAGES = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}
_STEPS = {"image_size": 32, "hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}
_PYRAMID = {**_STEPS, "depths": [2, 2, 2, 2], "num_attention_heads": [1, 2, 2, 4]}
_WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
_PERCEIVER = {
    "image_size": 56,
    "num_latents": 8,
    "d_latents": 32,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 1,
}

CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "beit": _PATCHES,
    "bit": {**_STAGES, "num_groups": 4},
    "clip": {"vision_config": {**_PATCHES, "projection_dim": 32}},
    "convnext": _STEPS,
    "convnextv2": _STEPS,
    "cvt": {"embed_dim": [16, 24, 32], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
    "data2vec-vision": _PATCHES,
    "deit": _PATCHES,
    "dinov2": _PATCHES,
    "dinov2_with_registers": _PATCHES,
    "donut-swin": _WINDOWS,
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320, "image_size": 32},
    "focalnet": {**_STEPS, "embed_dim": 16, "focal_levels": [1] * 4, "focal_windows": [3] * 4, "patch_size": 2},
    "hgnet_v2": {
        **_STAGES,
        "stem_channels": [3, 8, 12],
        "stage_in_channels": [12, 16, 24, 32],
        "stage_mid_channels": [8, 8, 12, 16],
        "stage_out_channels": [16, 24, 32, 48],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [2, 2, 2, 2],
    },
    "hiera": {"image_size": [64, 64], "embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 4]},
    "ijepa": _PATCHES,
    "imagegpt": {"vocab_size": 28, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "levit": {
        "image_size": 64,
        "hidden_sizes": [16, 24, 32],
        "num_attention_heads": [2, 2, 2],
        "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
    "metaclip_2": {"vision_config": {**_PATCHES, "projection_dim": 32}},
    "mobilenet_v1": {"image_size": 32, "depth_multiplier": 0.25},
    "mobilenet_v2": {"image_size": 32, "depth_multiplier": 0.25},
    "mobilevit": {
        "image_size": 64,
        "hidden_sizes": [16, 24, 32],
        "neck_hidden_sizes": [8, 8, 12, 16, 24, 32, 48],
    },
    "mobilevitv2": {
        "image_size": 64,
        "width_multiplier": 0.25,
        "base_attn_unit_dims": [64, 96, 128],
        "n_attn_blocks": [1, 1, 1],
    },
    "perceiver": _PERCEIVER,
    "poolformer": _STEPS,
    "pp_lcnet": {"scale": 0.25, "class_expand": 64},
    "pvt": {**_PYRAMID, "num_labels": 6},
    "pvt_v2": _PYRAMID,
    "regnet": {**_STAGES, "groups_width": 8},
    "resnet": _STAGES,
    "segformer": _PYRAMID,
    "siglip": {"vision_config": _PATCHES},
    "siglip2": {"vision_config": {**TINY_VISION, "patch_size": 8, "num_patches": 16}},
    "swiftformer": {"image_size": 32, "depths": [1, 1, 1, 1], "embed_dims": [16, 24, 32, 48]},
    "swin": _WINDOWS,
    "swinv2": _WINDOWS,
    "textnet": {
        "image_size": [64, 64],
        "stem_out_channels": 16,
        "hidden_sizes": [16, 16, 24, 32, 48],
        "conv_layer_kernel_sizes": [[[3, 3]], [[3, 3]], [[3, 1]], [[1, 3]]],
        "conv_layer_strides": [[2], [2], [2], [2]],
    },
    "vit": _PATCHES,
    "vit_msn": _PATCHES,
}
"""Model type → arguments of its config."""

PROCESSORS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "beit": ("BeitImageProcessor", {**SQUARE, "do_center_crop": False}),
    "bit": ("BitImageProcessor", CROPPED),
    "clip": ("CLIPImageProcessor", CROPPED),
    "convnext": ("ConvNextImageProcessor", SHORTEST),
    "convnextv2": ("ConvNextImageProcessor", SHORTEST),
    "cvt": ("ConvNextImageProcessor", SHORTEST),
    "data2vec-vision": ("BeitImageProcessor", {**SQUARE, "do_center_crop": False}),
    "deit": ("DeiTImageProcessor", {"size": {"height": 36, "width": 36}, "crop_size": SIDE}),
    "dinov2": ("BitImageProcessor", CROPPED),
    "dinov2_with_registers": ("BitImageProcessor", CROPPED),
    "donut-swin": ("DonutImageProcessor", SQUARE),
    "efficientnet": ("EfficientNetImageProcessor", SQUARE),
    "focalnet": ("BitImageProcessor", CROPPED),
    "hgnet_v2": ("ViTImageProcessor", SQUARE),
    "hiera": ("BitImageProcessor", CROPPED_LARGER),
    "ijepa": ("ViTImageProcessor", SQUARE),
    "imagegpt": ("ImageGPTImageProcessor", {"size": {"height": 8, "width": 8}, "clusters": _CLUSTERS}),
    "levit": ("LevitImageProcessor", CROPPED_LARGER),
    "metaclip_2": ("CLIPImageProcessor", CROPPED),
    "mobilenet_v1": ("MobileNetV1ImageProcessor", CROPPED),
    "mobilenet_v2": ("MobileNetV2ImageProcessor", CROPPED),
    "mobilevit": ("MobileViTImageProcessor", CROPPED_LARGER),
    "mobilevitv2": ("MobileViTImageProcessor", CROPPED_LARGER),
    "perceiver": ("PerceiverImageProcessor", {"size": _FIFTY_SIX, "crop_size": _FIFTY_SIX}),
    "poolformer": ("PoolFormerImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": SIDE}),
    "pp_lcnet": ("PPLCNetImageProcessor", {}),
    "pvt": ("PvtImageProcessor", SQUARE),
    "pvt_v2": ("PvtImageProcessor", SQUARE),
    "regnet": ("ConvNextImageProcessor", SHORTEST),
    "resnet": ("ConvNextImageProcessor", SHORTEST),
    "segformer": ("SegformerImageProcessor", SQUARE),
    "siglip": ("SiglipImageProcessor", SQUARE),
    "siglip2": ("Siglip2ImageProcessor", {"patch_size": 8, "max_num_patches": 16}),
    "swiftformer": ("ViTImageProcessor", SQUARE),
    "swin": ("ViTImageProcessor", SQUARE),
    "swinv2": ("ViTImageProcessor", SQUARE),
    "textnet": ("TextNetImageProcessor", {"size": {"shortest_edge": 64}, "do_center_crop": False}),
    "vit": ("ViTImageProcessor", SQUARE),
    "vit_msn": ("ViTImageProcessor", SQUARE),
}
"""Model type → image processor and its arguments."""
