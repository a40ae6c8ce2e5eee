"""Rows for image-classification: every class that the library maps and that runs with what is installed."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from PIL import Image

from tests.architectures.case import Case, Data, NotTried, Outcome, with_field
from tests.architectures.image_configs import CONFIGS, PROCESSORS
from tests.architectures.media import picture
from tests.architectures.rows_vision_idefics import GEMMA_CHAT, GEMMA_MARKS
from tests.architectures.vision_builders import SIGLIP, gemma_tokenizer, save, settle, text_config, token_id

NAMES = ("bell", "cat", "house", "ship", "tree", "wheel")
_LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: number for number, name in enumerate(NAMES)}}
_TASK = "image-classification"
_BY_LABELS = {
    "BeitForImageClassification": "beit",
    "BitForImageClassification": "bit",
    "CLIPForImageClassification": "clip",
    "ConvNextForImageClassification": "convnext",
    "ConvNextV2ForImageClassification": "convnextv2",
    "CvtForImageClassification": "cvt",
    "Data2VecVisionForImageClassification": "data2vec-vision",
    "DeiTForImageClassification": "deit",
    "DeiTForImageClassificationWithTeacher": "deit",
    "Dinov2ForImageClassification": "dinov2",
    "Dinov2WithRegistersForImageClassification": "dinov2_with_registers",
    "DonutSwinForImageClassification": "donut-swin",
    "EfficientNetForImageClassification": "efficientnet",
    "FocalNetForImageClassification": "focalnet",
    "HGNetV2ForImageClassification": "hgnet_v2",
    "HieraForImageClassification": "hiera",
    "IJepaForImageClassification": "ijepa",
    "ImageGPTForImageClassification": "imagegpt",
    "LevitForImageClassification": "levit",
    "LevitForImageClassificationWithTeacher": "levit",
    "MetaClip2ForImageClassification": "metaclip_2",
    "MobileNetV1ForImageClassification": "mobilenet_v1",
    "MobileNetV2ForImageClassification": "mobilenet_v2",
    "MobileViTForImageClassification": "mobilevit",
    "MobileViTV2ForImageClassification": "mobilevitv2",
    "PPLCNetForImageClassification": "pp_lcnet",
    "PerceiverForImageClassificationConvProcessing": "perceiver",
    "PerceiverForImageClassificationFourier": "perceiver",
    "PerceiverForImageClassificationLearned": "perceiver",
    "PoolFormerForImageClassification": "poolformer",
    "PvtForImageClassification": "pvt",
    "PvtV2ForImageClassification": "pvt_v2",
    "RegNetForImageClassification": "regnet",
    "ResNetForImageClassification": "resnet",
    "SegformerForImageClassification": "segformer",
    "Siglip2ForImageClassification": "siglip2",
    "SiglipForImageClassification": "siglip",
    "SwiftFormerForImageClassification": "swiftformer",
    "SwinForImageClassification": "swin",
    "Swinv2ForImageClassification": "swinv2",
    "TextNetForImageClassification": "textnet",
    "ViTForImageClassification": "vit",
    "ViTMSNForImageClassification": "vit_msn",
}
_QUICK = ("ResNetForImageClassification", "ViTForImageClassification")


def classifier(architecture: str, folder: Path) -> None:
    """Writes a classifier with labels of its own, and its image processor."""
    kind = _BY_LABELS[architecture]
    config = hf.CONFIG_MAPPING[kind](**CONFIGS[kind], **_LABELS)
    name, arguments = PROCESSORS[kind]
    processor = getattr(hf, name)(**arguments)
    model = settle(getattr(hf, architecture)(config), gain=1.0)
    accustom(model, processor([picture(seed, 64, 64) for seed in range(10, 18)], return_tensors="pt"))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


@torch.no_grad()  # type: ignore[untyped-decorator]
def accustom(model: Any, seen: Any) -> None:
    """Has batch norms take means and variances from pictures, and pass on all that they see: some begin shut."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train().momentum = None
        torch.nn.init.ones_(norm.weight)
    if norms:
        model(**seen)
    model.eval()


def shieldgemma2(folder: Path) -> None:
    """ShieldGemma 2: a Gemma 3 that is asked whether a picture breaks a policy."""
    tokenizer = gemma_tokenizer(*GEMMA_MARKS.values(), extra_special_tokens=GEMMA_MARKS)
    pictures = hf.Gemma3ImageProcessor(size={"height": 32, "width": 32})
    processor = hf.ShieldGemma2Processor(pictures, tokenizer, chat_template=GEMMA_CHAT, image_seq_length=4)
    layers = ["sliding_attention", "full_attention"]
    config = hf.ShieldGemma2Config(
        vision_config={**SIGLIP, "vision_use_head": False},
        text_config=text_config(
            "gemma3_text", tokenizer, head_dim=8, query_pre_attn_scalar=8, sliding_window=16, layer_types=layers
        ),
        mm_tokens_per_image=4,
        boi_token_index=token_id(tokenizer, "<start_of_image>"),
        eoi_token_index=token_id(tokenizer, "<end_of_image>"),
        image_token_index=token_id(tokenizer, "<image_soft_token>"),
        yes_token_index=20,
        no_token_index=30,
    )
    save(folder, hf.ShieldGemma2ForImageClassification(config), processor)


def by_labels(architecture: str, folder: Path, data: Data) -> Outcome:
    """Asks a classifier directly: its labels by their probabilities."""
    kind, processor = _BY_LABELS[architecture], hf.AutoImageProcessor.from_pretrained(folder)
    model = getattr(hf, architecture).from_pretrained(folder).eval()
    with torch.inference_mode():
        seen = model(**processor(Image.fromarray(data["image"]), return_tensors="pt"))
    # PP-LCNet calls its logits by another name.
    logits = (seen.last_hidden_state if kind == "pp_lcnet" else seen.logits)[0]
    return _ranked(logits.softmax(-1), [model.config.id2label[place] for place in range(len(NAMES))])


def by_policies(folder: Path, data: Data) -> Outcome:
    """Asks a model about its policies: they by the probability that the picture breaks them."""
    processor = hf.AutoProcessor.from_pretrained(folder)
    model = hf.ShieldGemma2ForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        seen = model(**processor(images=[Image.fromarray(data["image"])], return_tensors="pt"))
    return _ranked(seen.probabilities[:, 0], list(processor.policy_definitions))


def _ranked(scores: torch.Tensor, names: list[str]) -> Outcome:
    order = scores.argsort(descending=True).tolist()
    return Outcome([names[place] for place in order], [float(scores[place]) for place in order])


def _case(architecture: str, build: Any, direct: Any) -> Case:
    """Returns a row that shows a picture which is wider than high."""
    return Case(
        architecture,
        _TASK,
        build,
        lambda: {"image": picture(1, 80, 64)},
        {"image": with_field("image", lambda: picture(2, 80, 64))},
        direct,
        options={"top_k": 0},
        quick=architecture in _QUICK,
    )


CASES = [
    *(_case(name, partial(classifier, name), partial(by_labels, name)) for name in _BY_LABELS),
    _case("ShieldGemma2ForImageClassification", shieldgemma2, by_policies),
]
NOT_TRIED: NotTried = {
    (_TASK, "DinatForImageClassification"): "its attention needs the package natten, which is not installed here",
    (_TASK, "TimmWrapperForImageClassification"): "it is a model of timm, which is not installed",
}
