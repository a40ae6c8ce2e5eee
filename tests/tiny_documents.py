"""Tiny random models that answer questions about documents: real architectures, processors and tokenizers."""

from pathlib import Path
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;-/$?#@!()'"
WIDTH = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
# Weights this far from nothing make a random model's answers depend on what it is shown.
SPREAD = 0.3


def tiny_layoutlm(folder: Path, *, positions: int = 64) -> Path:
    """Saves a LayoutLM with a WordPiece tokenizer of single letters."""
    import torch
    from transformers import BertTokenizer, LayoutLMConfig, LayoutLMForQuestionAnswering

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *dict.fromkeys(LETTERS.lower()), *(f"##{letter}" for letter in dict.fromkeys(LETTERS.lower()))]
    tokenizer = BertTokenizer(vocab={piece: place for place, piece in enumerate(pieces)})
    torch.manual_seed(0)
    config = LayoutLMConfig(
        vocab_size=len(pieces), max_position_embeddings=positions, initializer_range=SPREAD, **WIDTH
    )
    LayoutLMForQuestionAnswering(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_layoutlm_bytes(folder: Path) -> Path:
    """Saves a LayoutLM with RoBERTa's byte-level tokenizer, as that of the best known one for questions."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import LayoutLMConfig, LayoutLMForQuestionAnswering, RobertaTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    torch.manual_seed(0)
    config = LayoutLMConfig(
        vocab_size=len(pieces), max_position_embeddings=64, type_vocab_size=1, pad_token_id=1,
        initializer_range=SPREAD, **WIDTH,
    )  # fmt: skip
    LayoutLMForQuestionAnswering(config).save_pretrained(folder)
    RobertaTokenizer(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[]).save_pretrained(folder)
    return folder


def tiny_layoutlmv3(folder: Path, *, positions: int = 66, pictures: bool = True) -> Path:
    """Saves a LayoutLMv3 with a byte-level tokenizer; its window is two tokens less than its positions."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import LayoutLMv3Config, LayoutLMv3ForQuestionAnswering, LayoutLMv3Processor, LayoutLMv3Tokenizer
    from transformers.models.layoutlmv3.image_processing_pil_layoutlmv3 import LayoutLMv3ImageProcessorPil

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    # Its tokenizer says that it takes any length, as those of published models do.
    tokenizer = LayoutLMv3Tokenizer(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[])
    torch.manual_seed(0)
    config = LayoutLMv3Config(
        vocab_size=len(pieces),
        max_position_embeddings=positions,
        coordinate_size=6,
        shape_size=4,
        input_size=32,
        patch_size=16,
        num_labels=2,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        initializer_range=SPREAD,
        **WIDTH,
    )
    LayoutLMv3ForQuestionAnswering(config).save_pretrained(folder)
    if pictures:
        # Reading words by itself is what it does unless told otherwise; that needs a program that is not here.
        seen = LayoutLMv3ImageProcessorPil(apply_ocr=True, size={"height": 32, "width": 32})
        LayoutLMv3Processor(seen, tokenizer).save_pretrained(folder)
    else:
        tokenizer.save_pretrained(folder)
    return folder


def tiny_layoutlmv2_config(folder: Path) -> Path:
    """Saves the config of a LayoutLMv2 and its tokenizer; the model itself cannot be made without detectron2."""
    from transformers import LayoutLMv2Config, LayoutLMv2Tokenizer

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(LETTERS.lower())]
    config = LayoutLMv2Config(vocab_size=len(pieces), **WIDTH)
    config.architectures = ["LayoutLMv2ForQuestionAnswering"]
    config.save_pretrained(folder)
    LayoutLMv2Tokenizer(vocab={piece: place for place, piece in enumerate(pieces)}).save_pretrained(folder)
    return folder


def byte_tokenizer(special: list[str], **named: Any) -> Any:
    """Returns a byte-level tokenizer, one token a byte, with special tokens, `<pad>`, `<s>` and `</s>` first."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = ["<pad>", "<s>", "</s>", "<unk>", *letters]
    tokenizer = Tokenizer(models.BPE(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        **named,
    )
    fast.add_special_tokens({"extra_special_tokens": [AddedToken(token, special=True) for token in special]})
    return fast


def tiny_donut(folder: Path, *, questions: bool = True) -> Path:
    """Saves a Donut (Swin and MBart), made for questions or not."""
    import torch
    from transformers import (
        DonutProcessor,
        DonutSwinConfig,
        MBartConfig,
        VisionEncoderDecoderConfig,
        VisionEncoderDecoderModel,
    )
    from transformers.models.donut.image_processing_pil_donut import DonutImageProcessorPil

    fields = ["<s_docvqa>", "<s_question>", "</s_question>", "<s_answer>", "</s_answer>"] if questions else []
    tokenizer = byte_tokenizer(fields)
    torch.manual_seed(0)
    encoder = DonutSwinConfig(
        image_size=[64, 32], patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4,
        initializer_range=SPREAD,
    )  # fmt: skip
    decoder = MBartConfig(
        vocab_size=len(tokenizer), d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48,
        max_position_embeddings=512, is_decoder=True, add_cross_attention=True, init_std=SPREAD,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    model = VisionEncoderDecoderModel(config)
    model.generation_config.decoder_start_token_id = 1
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 2
    model.save_pretrained(folder)
    pictures = DonutImageProcessorPil(size={"height": 64, "width": 32}, do_align_long_axis=False)
    DonutProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def tiny_pix2struct(folder: Path) -> Path:
    """Saves a Pix2Struct made for questions."""
    import torch
    from transformers import (
        Pix2StructConfig,
        Pix2StructForConditionalGeneration,
        Pix2StructProcessor,
        Pix2StructTextConfig,
        Pix2StructVisionConfig,
    )
    from transformers.models.pix2struct.image_processing_pil_pix2struct import Pix2StructImageProcessorPil

    tokenizer = byte_tokenizer([])
    torch.manual_seed(0)
    text = Pix2StructTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, initializer_factor=3.0,
        pad_token_id=0, eos_token_id=2, decoder_start_token_id=0,
    )  # fmt: skip
    vision = Pix2StructVisionConfig(
        hidden_size=32, patch_embed_hidden_size=3 * 8 * 8, d_ff=48, d_kv=8, num_hidden_layers=2,
        num_attention_heads=4, seq_len=64, initializer_factor=3.0, patch_size=8,
    )  # fmt: skip
    config = Pix2StructConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), is_vqa=True)
    model = Pix2StructForConditionalGeneration(config)
    model.generation_config.decoder_start_token_id = 0
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 2
    model.save_pretrained(folder)
    pictures = Pix2StructImageProcessorPil(is_vqa=True, patch_size={"height": 8, "width": 8}, max_patches=64)
    Pix2StructProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def tiny_udop(folder: Path) -> Path:
    """Saves a UDOP, which reads words and writes."""
    from transformers import UdopConfig, UdopForConditionalGeneration, UdopProcessor, UdopTokenizer
    from transformers.models.layoutlmv3.image_processing_pil_layoutlmv3 import LayoutLMv3ImageProcessorPil

    from tests.architectures.vision_builders import settle, unigram

    tokenizer = unigram(UdopTokenizer, ["<pad>", "</s>", "<unk>"])
    config = UdopConfig(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, image_size=32,
        patch_size=16, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    model = UdopForConditionalGeneration(config)
    model.generation_config.decoder_start_token_id = 0
    model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 1
    settle(model, gain=4.0).save_pretrained(folder)
    # Reading words by itself is what it does unless told otherwise; that needs a program that is not here.
    pictures = LayoutLMv3ImageProcessorPil(apply_ocr=True, size={"height": 32, "width": 32})
    UdopProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder
