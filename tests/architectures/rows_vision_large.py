"""Rows of vision-language models of the large families, and of those that answer questions and nothing else."""

from pathlib import Path
from typing import Any

import torch
import transformers as hf
from PIL import Image

from tests.architectures.case import Case, Outcome
from tests.architectures.rows_ocr import florence2
from tests.architectures.rows_vision_blip import SIZE, VISION, git
from tests.architectures.rows_vision_more import GLM_CHAT, GLM_ROPE, GLM_SIZE, GLM_VISION, glm_parts, glm_tokenizer
from tests.architectures.rows_vision_qwen import MARKS, SMALL, TOKENS, ids
from tests.architectures.rows_vision_qwen import VISION as QWEN_VISION
from tests.architectures.rows_vision_tiles import llama_chat, llama_tokenizer
from tests.architectures.tokens import generated
from tests.architectures.vision_builders import (
    TINY_VISION,
    chatml,
    qwen_tokenizer,
    save,
    text_config,
    token_id,
    word_pieces,
)
from tests.architectures.vision_cases import by_chat, load, vlm

SIDE = {"height": 32, "width": 32}


def llama4(folder: Path) -> None:
    """Llama 4: experts, tiles with separators."""
    marks = [
        "<|image|>",
        "<|image_start|>",
        "<|image_end|>",
        "<|patch|>",
        "<|tile_x_separator|>",
        "<|tile_y_separator|>",
    ]
    tokenizer = llama_tokenizer(*marks)
    config = hf.Llama4Config(
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "vision_output_dim": 32,
            "image_size": 32,
            "patch_size": 8,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        },
        text_config=text_config(
            "llama4_text",
            tokenizer,
            intermediate_size_mlp=64,
            head_dim=8,
            num_local_experts=4,
            interleave_moe_layer_step=2,
            attention_chunk_size=64,
        ),
        boi_token_index=token_id(tokenizer, "<|image_start|>"),
        eoi_token_index=token_id(tokenizer, "<|image_end|>"),
        image_token_index=token_id(tokenizer, "<|patch|>"),
    )
    pictures = hf.Llama4ImageProcessor(size=SIDE, max_patches=4)
    processor = hf.Llama4Processor(pictures, tokenizer, patch_size=8, chat_template=llama_chat(image="<|image|>"))
    save(folder, hf.Llama4ForConditionalGeneration(config), processor)


def aria(folder: Path) -> None:
    """Aria: queries ask the picture, experts answer."""
    marks = {"image_token": "<|img|>"}
    tokenizer = qwen_tokenizer(*marks.values())
    tokenizer._set_model_specific_special_tokens(marks)
    vision = {**TINY_VISION, "model_type": "idefics3_vision", "image_size": 980, "patch_size": 140}
    config = hf.AriaConfig(
        vision_config=vision,
        text_config=text_config("aria_text", tokenizer, moe_num_experts=4, moe_topk=2, moe_num_shared_experts=1),
        projector_patch_to_query_dict={49: 4},
        image_token_index=token_id(tokenizer, "<|img|>"),
    )
    template = chatml(image="<|img|>")
    processor = hf.AriaProcessor(hf.AriaImageProcessor(), tokenizer, chat_template=template, size_conversion={980: 4})
    save(folder, hf.AriaForConditionalGeneration(config), processor)


def video_llama3(folder: Path) -> None:
    """VideoLLaMA 3: patches of any number before Qwen2."""
    tokenizer = qwen_tokenizer(*TOKENS)
    names = ids(tokenizer)
    config = hf.VideoLlama3Config(
        vision_config={**TINY_VISION, "patch_size": 8},
        text_config=text_config("qwen2", tokenizer),
        image_token_id=names["image_token_id"],
        video_token_id=names["video_token_id"],
    )
    processor = hf.VideoLlama3Processor(
        hf.VideoLlama3ImageProcessor(patch_size=8, size=SMALL),
        tokenizer,
        hf.VideoLlama3VideoProcessor(patch_size=8, size=SMALL),
        chat_template=chatml(image="<|image_pad|>", video="<|video_pad|>"),
    )
    save(folder, hf.VideoLlama3ForConditionalGeneration(config), processor)


def exaone4_5(folder: Path) -> None:
    """EXAONE 4.5."""
    tokenizer = qwen_tokenizer(*TOKENS)
    names = ids(tokenizer)
    config = hf.Exaone4_5_Config(
        vision_config={
            **QWEN_VISION,
            "hidden_size": 32,
            "intermediate_size": 64,
            "out_hidden_size": 32,
            "num_key_value_heads": 2,
            "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        text_config=text_config("exaone4", tokenizer, sliding_window=64),
        image_token_id=names["image_token_id"],
        video_token_id=names["video_token_id"],
    )
    processor = hf.Exaone4_5_Processor(
        hf.Qwen2VLImageProcessor(patch_size=8, size=SMALL),
        tokenizer,
        hf.Qwen2VLVideoProcessor(patch_size=8, size=SMALL),
        chat_template=chatml(**MARKS),
    )
    save(folder, hf.Exaone4_5_ForConditionalGeneration(config), processor)


def glm4v_moe(folder: Path) -> None:
    """GLM-4.5V: GLM-4.1V with experts."""
    tokenizer = glm_tokenizer()
    experts = {
        "moe_intermediate_size": 32,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    }
    config = hf.Glm4vMoeConfig(
        vision_config=GLM_VISION,
        text_config=text_config("glm4v_moe_text", tokenizer, rope_parameters=GLM_ROPE, **experts),
        **glm_parts(tokenizer),
    )
    processor = hf.Glm4vProcessor(
        hf.Glm4vImageProcessor(patch_size=8, size=GLM_SIZE),
        tokenizer,
        hf.Glm4vVideoProcessor(patch_size=8, size=GLM_SIZE),
        chat_template=GLM_CHAT,
    )
    save(folder, hf.Glm4vMoeForConditionalGeneration(config), processor)


def vilt(folder: Path) -> None:
    """ViLT: chooses among the answers that it knows."""
    tokenizer = word_pieces(hf.BertTokenizer)
    answers = dict(enumerate(("yes", "no", "two", "green")))
    config = hf.ViltConfig(
        **TINY_VISION,
        vocab_size=len(tokenizer),
        image_size=32,
        patch_size=8,
        id2label=answers,
        label2id={answer: number for number, answer in answers.items()},
    )
    pictures = hf.ViltImageProcessor(size={"shortest_edge": 32}, size_divisor=8)
    save(folder, hf.ViltForQuestionAnswering(config), hf.ViltProcessor(pictures, tokenizer))


def by_choice(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks ViLT, whose answers do not exclude each other."""
    model, processor = load(folder, hf.AutoModelForVisualQuestionAnswering)
    with torch.inference_mode():
        logits = model(**processor(Image.fromarray(data["image"]), data["prompt"], return_tensors="pt")).logits[0]
    scores = logits.sigmoid().sort(descending=True)
    return Outcome(model.config.id2label[int(scores.indices[0])], scores.values.tolist())


def blip_vqa(folder: Path) -> None:
    """BLIP made for questions."""
    tokenizer = word_pieces(hf.BertTokenizer)
    text = {
        **TINY_VISION,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": 32,
        "projection_dim": 32,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }
    config = hf.BlipConfig(text_config=text, vision_config={**VISION, "projection_dim": 32}, projection_dim=32)
    processor = hf.BlipProcessor(hf.BlipImageProcessor(**SIZE), tokenizer)
    save(folder, hf.BlipForQuestionAnswering(config), processor)


def by_blip_vqa(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks BLIP: its decoder writes the answer from the start."""
    model, processor = load(folder, hf.BlipForQuestionAnswering)
    inputs = processor(images=Image.fromarray(data["image"]), text=data["prompt"], return_tensors="pt")
    return generated(model, processor.tokenizer, inputs, skip=1)


def by_git(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks GIT as for a question: the answer goes on from it, so no separator ends it."""
    model, processor = load(folder)
    pixels = processor(images=Image.fromarray(data["image"]), return_tensors="pt").pixel_values
    words = processor(text=data["prompt"], add_special_tokens=False).input_ids
    asked = torch.tensor([[processor.tokenizer.cls_token_id, *words]])
    return generated(model, processor.tokenizer, {"pixel_values": pixels, "input_ids": asked}, skip=asked.shape[1])


def by_florence(folder: Path, data: dict[str, Any]) -> Outcome:
    """Asks Florence-2 in words."""
    model, processor = load(folder)
    inputs = processor(text=data["prompt"], images=Image.fromarray(data["image"]), return_tensors="pt")
    return generated(model, processor.tokenizer, inputs, skip=1)


def chosen(architecture: str, build: Any, direct: Any) -> Case:
    """Returns a row of a model that does not generate."""
    case = vlm(architecture, build, direct)
    return Case(case.architecture, case.task, case.build, case.data, case.changes, case.direct)


CASES = [
    vlm("Llama4ForConditionalGeneration", llama4, by_chat),
    vlm("AriaForConditionalGeneration", aria, by_chat),
    vlm("VideoLlama3ForConditionalGeneration", video_llama3, by_chat),
    vlm("Exaone4_5_ForConditionalGeneration", exaone4_5, by_chat),
    vlm("Glm4vMoeForConditionalGeneration", glm4v_moe, by_chat),
    vlm("GitForCausalLM", git, by_git),
    vlm("Florence2ForConditionalGeneration", florence2, by_florence),
    vlm("BlipForQuestionAnswering", blip_vqa, by_blip_vqa),
    chosen("ViltForQuestionAnswering", vilt, by_choice),
]
NOT_TRIED: dict[tuple[str, str], str] = {}
