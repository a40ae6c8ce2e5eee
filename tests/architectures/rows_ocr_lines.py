"""Rows of the task ocr: recognisers of single lines that classify columns (PP-OCR)."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from PIL import Image

from tests.architectures.case import Case, Outcome
from tests.architectures.vision_builders import settle
from tests.architectures.vision_cases import Build, ocr

CHARACTERS = ["blank", *"0123456789abcdefghijklmnopqrstuvwxyz", " "]
HGNET = {
    "model_type": "hgnet_v2",
    "embedding_size": 8,
    "depths": [1, 1, 1, 1],
    "hidden_sizes": [16, 16, 32, 32],
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 16, 16, 32],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [16, 16, 32, 32],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [2, 2, 2, 2],
    "stage_downsample_strides": [[2, 1], [1, 2], [2, 1], [2, 1]],
    "stage_downsample": [True, True, True, True],
    "stem_strides": [2, 1, 1, 1, 1],
    "out_features": ["stage4"],
}
LCNET3 = {
    "model_type": "pp_lcnet_v3",
    "stem_channels": 8,
    "block_configs": [
        [[3, 8, 8, 1, False]],
        [[3, 8, 16, 2, False]],
        [[3, 16, 16, [2, 1], False]],
        [[3, 16, 32, [2, 1], True]],
        [[3, 32, 32, 1, False]],
    ],
}
LCNET4 = {
    "model_type": "pp_lcnet_v4",
    "stem_channels": [3, 8, 16],
    "block_configs": [
        [[3, 16, 16, 1, True]],
        [[3, 16, 16, 1, False]],
        [[3, 16, 32, [2, 1], False]],
        [[3, 32, 32, [2, 1], True]],
    ],
}
HEAD = {"hidden_size": 16, "head_out_channels": len(CHARACTERS)}
ATTENTION = {"num_attention_heads": 4, "depth": 1}


def recogniser(model: Any, pictures: Any, gain: float) -> Build:
    """Returns what writes a recogniser and what prepares its lines."""

    def build(folder: Path) -> None:
        settle(model(), gain=gain).save_pretrained(folder)
        pictures(character_list=CHARACTERS).save_pretrained(folder)

    return build


def server_v5() -> Any:
    """PP-OCRv5, the server's."""
    return hf.PPOCRV5ServerRecForTextRecognition(hf.PPOCRV5ServerRecConfig(backbone_config=HGNET, **HEAD, **ATTENTION))


def mobile_v5() -> Any:
    """PP-OCRv5, for telephones."""
    return hf.PPOCRV5MobileRecForTextRecognition(hf.PPOCRV5MobileRecConfig(backbone_config=LCNET3, **HEAD, **ATTENTION))


def tiny_v6() -> Any:
    """PP-OCRv6, tiny."""
    return hf.PPOCRV6TinyRecForTextRecognition(hf.PPOCRV6TinyRecConfig(backbone_config=LCNET4, **HEAD))


def small_v6() -> Any:
    """PP-OCRv6, small."""
    return hf.PPOCRV6SmallRecForTextRecognition(hf.PPOCRV6SmallRecConfig(backbone_config=LCNET4, **HEAD, **ATTENTION))


def by_columns(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks a recogniser; its image processor reads the columns."""
    model = hf.AutoModelForTextRecognition.from_pretrained(folder).eval()
    pictures = hf.AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        output = model(**pictures(Image.fromarray(data["image"]), return_tensors="pt"))
    (found,) = pictures.post_process_text_recognition(output)
    best, chosen = output.last_hidden_state[0].max(-1)
    new = torch.cat([torch.ones(1, dtype=torch.bool), chosen[1:] != chosen[:-1]]) & (chosen != 0)
    return Outcome(found["text"].strip(), best[new].log().tolist())


def line(architecture: str, model: Any, pictures: Any, gain: float) -> Case:
    """Returns a row of a recogniser; `gain`: how loud its weights are."""
    case = ocr(architecture, recogniser(model, pictures, gain), by_columns)
    return Case(case.architecture, case.task, case.build, case.data, case.changes, case.direct, {"logprobs": True})


CASES = [
    line("PPOCRV5ServerRecForTextRecognition", server_v5, hf.PPOCRV5ServerRecImageProcessor, 1.5),
    line("PPOCRV5MobileRecForTextRecognition", mobile_v5, hf.PPOCRV5ServerRecImageProcessor, 1.0),
    line("PPOCRV6TinyRecForTextRecognition", tiny_v6, hf.PPOCRV6SmallRecImageProcessor, 1.5),
    line("PPOCRV6SmallRecForTextRecognition", small_v6, hf.PPOCRV6SmallRecImageProcessor, 1.5),
]
NOT_TRIED: dict[tuple[str, str], str] = {}
