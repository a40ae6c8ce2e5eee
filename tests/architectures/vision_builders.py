"""What the rows of vision, ocr, video and documents share: tokenizers of the real classes, seeded weights."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

TEXTS = (
    "a red square above a blue circle, and two green stars on the left",
    "What is in the picture? The picture shows a cat, a dog and a house.",
    "invoice number 4711, date 12 May, total 93.50 euro, paid in cash",
    "USER: how many stars are there? ASSISTANT: there are three stars. Question: what colour? Answer: green",
    "the ball moves from left to right, then it stops; the video has eight frames",
)

SEED = 7


def byte_level(kind: Any, special: Sequence[str], *, extra: Sequence[str] = (), **kwargs: Any) -> Any:
    """Returns a tokenizer of a class whose vocabulary is byte-level BPE, trained on `TEXTS`.

    `special`: the tokens that come first in the vocabulary; `extra`: special tokens added after it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    bpe = trainers.BpeTrainer(
        vocab_size=300 + len(special), special_tokens=list(special), initial_alphabet=letters, show_progress=False
    )
    trained.train_from_iterator(TEXTS, bpe)
    if kind is PreTrainedTokenizerFast:
        tokenizer = kind(tokenizer_object=trained, **kwargs)
    else:
        vocabulary, merges = _parts(trained)
        tokenizer = kind(vocab=vocabulary, merges=merges, **kwargs)
    return _with_special(tokenizer, [*special, *extra])


def byte_fallback(kind: Any, special: Sequence[str], *, extra: Sequence[str] = (), **kwargs: Any) -> Any:
    """Returns a tokenizer of a class whose vocabulary is BPE over words with "▁" and single bytes beside it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE(byte_fallback=True))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    bpe = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*special, *single], initial_alphabet=["▁"], show_progress=False
    )
    trained.train_from_iterator(TEXTS, bpe)
    vocabulary, merges = _parts(trained)
    return _with_special(kind(vocab=vocabulary, merges=merges, **kwargs), [*special, *extra])


def unigram(kind: Any, special: Sequence[str], *, extra: Sequence[str] = (), **kwargs: Any) -> Any:
    """Returns a tokenizer of a class whose vocabulary is a unigram model (T5, XLM-RoBERTa)."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=list(special), unk_token="<unk>", show_progress=False
    )
    trained.train_from_iterator([*TEXTS, *(text.upper() for text in TEXTS)], pieces)
    known = _parts(trained)[0]
    # Pieces that are equally likely come in any order, which random weights would notice.
    ordered = [*known[: len(special)], *sorted(known[len(special) :])]
    return _with_special(kind(vocab=ordered, **kwargs), [*special, *extra])


def word_pieces(kind: Any, *, extra: Sequence[str] = (), **kwargs: Any) -> Any:
    """Returns a tokenizer of a class with BERT's word pieces."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer()
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    trained.train_from_iterator(TEXTS, pieces)
    # Pieces that are equally frequent come in any order, which random weights would notice.
    ordered = [*special, *sorted(_parts(trained)[0].keys() - set(special))]
    vocabulary = {piece: place for place, piece in enumerate(ordered)}
    return _with_special(kind(vocab=vocabulary, **kwargs), list(extra))


def _parts(trained: Any) -> tuple[Any, list[tuple[str, str]]]:
    """Returns vocabulary and merges of a trained tokenizer; for unigrams, pieces with their scores."""
    import json

    model = json.loads(trained.to_str())["model"]
    if isinstance(model["vocab"], list):
        return [(piece, score) for piece, score in model["vocab"]], []
    return model["vocab"], [tuple(pair) for pair in model.get("merges", [])]


def _with_special(tokenizer: Any, special: Iterable[str]) -> Any:
    from tokenizers import AddedToken

    tokens = [AddedToken(token, special=True, normalized=False) for token in special]
    tokenizer.add_tokens(tokens, special_tokens=True)
    return tokenizer


def token_id(tokenizer: Any, token: str) -> int:
    """Returns the id of a token that the vocabulary must have."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert found not in (None, tokenizer.unk_token_id), f"the tokenizer has no {token}"
    return int(found)


def chat_template(turn: str, part: dict[str, str], end: str, answer: str, *, start: str = "") -> str:
    """Returns a chat template: `turn` with `ROLE` in it, then the parts (`{"image": "<image>"}`), then `end`."""
    cases = "".join(f"{{% if part['type'] == '{kind}' %}}{mark}{{% endif %}}" for kind, mark in part.items())
    turn = turn.replace("ROLE", "{{ message['role'] }}")
    return (
        f"{start}{{% for message in messages %}}{turn}"
        f"{{% for part in message['content'] %}}{cases}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
        f"{end}{{% endfor %}}{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    )


def settle(model: Any, *, seed: int = SEED, gain: float = 1.5) -> Any:
    """Gives a model seeded random weights, large enough that what it sees decides what it says."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(seed)
    convolutions = {id(module.weight) for module in _modules(model, (nn.Conv1d, nn.Conv2d, nn.Conv3d))}
    embeddings = {id(module.weight) for module in _modules(model, (nn.Embedding,))}
    # Where words go in as they come out, loud ones would drown the picture: the model would repeat itself.
    tied = {id(module.weight) for module in _modules(model, (nn.Linear,))} & embeddings
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(parameter.dtype)
            if parameter.ndim >= 2:
                fan_in = parameter[0].numel() if id(parameter) in convolutions else parameter.shape[-1]
                loudness = gain / fan_in**0.5 if id(parameter) not in embeddings else 0.5
                parameter.copy_(noise * (0.15 if id(parameter) in tied else loudness))
            elif parameter.numel() and parameter.abs().max() < 0.01:
                # Biases, and gates and scales that begin at nothing: an untrained one would hide the picture.
                parameter.copy_(noise * 0.3)
    return model.eval()


def _modules(model: Any, kinds: tuple[Any, ...]) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, kinds))


def save(folder: Path, model: Any, processor: Any, *, seed: int = SEED, gain: float = 1.5) -> None:
    """Writes config, seeded weights and processor files; ends of answers are the tokenizer's."""
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is not None and model.can_generate():
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    settle(model, seed=seed, gain=gain).save_pretrained(folder)
    processor.save_pretrained(folder)


TINY_TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
TINY_VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def text_config(kind: str, tokenizer: Any, **kwargs: Any) -> dict[str, Any]:
    """Returns the config of a tiny language model of a type, with the tokenizer's vocabulary and special tokens."""
    return {
        "model_type": kind,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **TINY_TEXT,
        **kwargs,
    }


def llama_tokenizer(*extra: str) -> Any:
    """Returns a Llama tokenizer with a padding token and others."""
    from transformers import LlamaTokenizer

    return byte_fallback(
        LlamaTokenizer, ["<unk>", "<s>", "</s>"], extra=["<pad>", *extra], pad_token="<pad>", add_bos_token=True
    )


def qwen_tokenizer(*extra: str) -> Any:
    """Returns a Qwen tokenizer with the tokens of its chats and others."""
    from transformers import Qwen2Tokenizer

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *extra]
    return byte_level(Qwen2Tokenizer, special, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def gemma_tokenizer(*extra: str, **kwargs: Any) -> Any:
    """Returns a Gemma tokenizer with the tokens of its chats and others."""
    from transformers import GemmaTokenizer

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
    return byte_fallback(GemmaTokenizer, special, extra=extra, add_bos_token=True, **kwargs)


def chatml(**part: str) -> str:
    """Returns the chat template of Qwen and its kin; `part`: kind → its mark."""
    return chat_template("<|im_start|>ROLE\n", part, "<|im_end|>\n", "<|im_start|>assistant\n")


CLIP = {**TINY_VISION, "model_type": "clip_vision_model", "image_size": 32, "patch_size": 8, "projection_dim": 32}
SIGLIP = {**TINY_VISION, "model_type": "siglip_vision_model", "image_size": 32, "patch_size": 8}
SQUARE = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
GRID = [[32, 64], [64, 32], [64, 64]]
"""Sizes of tiles, height and width, for processors that cut a picture into some."""
