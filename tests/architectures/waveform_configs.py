"""Sizes of tiny models that hear waveforms or spectrograms: model type → overrides."""

from collections.abc import Mapping
from typing import Any

MELS = 80
_KERNELS = (10, 3, 3, 3, 3, 2, 2)
_CONVOLUTIONS = {"conv_dim": [16] * len(_KERNELS), "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
_PLAIN = {**_CONVOLUTIONS, "num_codevectors_per_group": 8, "codevector_dim": 16, "proj_codevector_dim": 16}
_SMALL = {"xvector_output_dim": 16, "tdnn_dim": [16] * 5}
# SEW's convolutions come in pairs, and it squeezes frames by two.
_SEW = {"conv_dim": [16] * 13, "squeeze_factor": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}

WAVEFORM: Mapping[str, Mapping[str, Any]] = {
    "data2vec-audio": {"conv_dim": [16] * 7, "num_conv_pos_embedding_groups": 4, **_SMALL},
    "hubert": _CONVOLUTIONS,
    "sew": _SEW,
    "sew-d": {**_SEW, "position_buckets": 16, "max_position_embeddings": 64},
    "unispeech": _PLAIN,
    "unispeech-sat": {**_PLAIN, **_SMALL},
    "wav2vec2": {**_PLAIN, **_SMALL, "adapter_stride": 2},
    "wav2vec2-bert": {"feature_projection_input_dim": 160, **_SMALL, "conv_depthwise_kernel_size": 7},
    "wav2vec2-conformer": {**_PLAIN, **_SMALL, "conv_depthwise_kernel_size": 7},
    "wavlm": {**_PLAIN, **_SMALL, "num_buckets": 16, "max_bucket_distance": 32},
}
