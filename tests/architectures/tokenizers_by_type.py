"""A tokenizer of the class that a model type has in the library, trained here."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from tests.architectures import tokens

CORPUS = [*tokens.TEXTS, *(text.lower() for text in tokens.TEXTS), *(text.upper() for text in tokens.TEXTS)] * 2
_SIZE = 384
_FILLED = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def tokenizer_for(model_type: str, specials: Sequence[str] = ()) -> Any:
    """Returns a trained tokenizer with a token to pad and one to end with; raises what its class raises."""
    name = TOKENIZER_MAPPING_NAMES.get(model_type) or "TokenizersBackend"
    if name in _BY_HAND:
        with TemporaryDirectory() as folder:
            return _BY_HAND[name](Path(folder))
    if name == "TokenizersBackend":
        return tokens.fast(specials, size=_SIZE)
    kind = tokenizer_class_from_name(name)
    if kind is None or not issubclass(kind, TokenizersBackend):
        raise NotImplementedError(f"its tokenizer {name} cannot be trained here")
    if kind.__init__ is TokenizersBackend.__init__:  # it has no way of its own to begin empty
        return kind(tokenizer_object=tokens.trained(specials, _SIZE), bos_token="<s>", **_FILLED)
    learnt = kind().train_new_from_iterator(CORPUS, _SIZE, new_special_tokens=list(specials) or None)
    for part in ("pad_token", "eos_token"):
        if getattr(learnt, part) is None:
            learnt.add_special_tokens(
                {part: learnt.sep_token if part == "eos_token" and learnt.sep_token else _FILLED[part]}
            )
    return learnt


def size_of(tokenizer: Any) -> int:
    """Returns how many rows an embedding needs: some tokenizers give languages ids beyond their length."""
    languages = getattr(tokenizer, "id_to_lang_token", {})
    return max([len(tokenizer) - 1, *tokenizer.get_vocab().values(), *tokenizer.all_special_ids, *languages]) + 1


def sentence_pieces(folder: Path, size: int = 200, **kwargs: Any) -> Path:
    """Writes a SentencePiece model trained here; `kwargs` go to its trainer."""
    import sentencepiece

    path = folder / "pieces.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_writer=file,
            vocab_size=size,
            hard_vocab_limit=False,
            minloglevel=2,
            num_threads=1,
            **kwargs,
        )
    return path


def pieces_of(path: Path) -> list[str]:
    """Returns a SentencePiece model's tokens, special ones included."""
    import sentencepiece

    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return [model.id_to_piece(place) for place in range(model.get_piece_size())]


def write_json(path: Path, value: Any) -> str:
    """Writes a file; returns its path as text."""
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return str(path)


def write_lines(path: Path, lines: Sequence[str]) -> str:
    """Writes a file; returns its path as text."""
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def words() -> list[str]:
    """Returns the corpus's words and letters, for tokenizers of word pieces."""
    letters = sorted({letter for text in CORPUS for letter in text.lower() if letter != " "})
    whole = sorted({word.strip(".,?!").lower() for text in CORPUS for word in text.split()} - set(letters))
    return [*letters, *(f"##{letter}" for letter in letters), *whole]


def numbered(entries: Sequence[str]) -> dict[str, int]:
    """Returns entry → place."""
    return {entry: place for place, entry in enumerate(entries)}


def _marian(folder: Path) -> Any:
    from transformers import MarianTokenizer

    path = sentence_pieces(folder)
    vocabulary = numbered(["</s>", "<unk>", *[piece for piece in pieces_of(path) if piece[0] != "<"], "<pad>"])
    vocab = write_json(folder / "vocab.json", vocabulary)
    return MarianTokenizer(str(path), str(path), vocab, source_lang="en", target_lang="de")


def _m2m(folder: Path) -> Any:
    from transformers import M2M100Tokenizer

    path = sentence_pieces(folder)
    pieces = [piece for piece in pieces_of(path) if piece[0] != "<"]
    vocab = write_json(folder / "vocab.json", numbered(["<s>", "<pad>", "</s>", "<unk>", *pieces]))
    return M2M100Tokenizer(vocab, str(path), src_lang="en", tgt_lang="de")


def _spoken(folder: Path) -> Any:
    from transformers import Speech2TextTokenizer

    path = sentence_pieces(folder)
    pieces = [piece for piece in pieces_of(path) if piece[0] != "<"]
    vocab = write_json(folder / "vocab.json", numbered(["<s>", "<pad>", "</s>", "<unk>", *pieces]))
    return Speech2TextTokenizer(vocab, str(path))


def _pieced(name: str, **kwargs: Any) -> Callable[[Path], Any]:
    def build(folder: Path) -> Any:
        return tokenizer_class_from_name(name)(str(sentence_pieces(folder, **kwargs)))

    return build


def _prophetnet(folder: Path) -> Any:
    from transformers import ProphetNetTokenizer

    return ProphetNetTokenizer(
        write_lines(folder / "v.txt", ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "[X_SEP]", *words()])
    )


def _roc_bert(folder: Path) -> Any:
    from transformers import RoCBertTokenizer

    entries = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *words()]
    same = write_json(folder / "same.json", numbered(entries))
    return RoCBertTokenizer(write_lines(folder / "v.txt", entries), same, same)


def _paired(name: str, end: str, **kwargs: Any) -> Callable[[Path], Any]:
    """Returns what builds a tokenizer of letters and merges, `end` marking a letter within a word."""

    def build(folder: Path) -> Any:
        letters = sorted({letter for text in CORPUS for letter in text if letter != " "})
        first = [kwargs[part] for part in ("unk_token", "pad_token", "bos_token", "eos_token") if part in kwargs]
        entries = [*first, *letters, *(f"{letter}{end}" for letter in letters), "the</w>", "th"]
        vocab = write_json(folder / "vocab.json", numbered(entries))
        merges = write_lines(folder / "merges.txt", ["#version: 0.2", "t h", "th e</w>"])
        return tokenizer_class_from_name(name)(vocab, merges, **kwargs)

    return build


def _japanese(folder: Path) -> Any:
    from transformers import GPTNeoXJapaneseTokenizer

    letters = sorted({letter for text in CORPUS for letter in text if letter != " "})
    bytes_ = [f"<|byte{number}|>" for number in range(256)]
    entries = [*letters, "<SP>", "<BR>", *bytes_, "<|startoftext|>", "<|endoftext|>"]
    emoji = write_json(folder / "emoji.json", {"emoji": {}, "emoji_inv": {}})
    return GPTNeoXJapaneseTokenizer(write_lines(folder / "vocab.txt", entries), emoji)


def _pegasus(folder: Path) -> Any:
    from transformers import PegasusTokenizer

    pieces = [piece for piece in pieces_of(sentence_pieces(folder)) if piece[0] != "<"]
    entries = ["<pad>", "</s>", "<mask_1>", "<mask_2>", "<unk>", *pieces]
    scores = {"<unk>": 0.0}
    return PegasusTokenizer(vocab=[(piece, scores.get(piece, -float(place))) for place, piece in enumerate(entries)])


_BY_HAND: dict[str, Callable[[Path], Any]] = {
    "BertGenerationTokenizer": _pieced("BertGenerationTokenizer", pad_id=3),
    "BlenderbotSmallTokenizer": _paired(
        "BlenderbotSmallTokenizer",
        "@@",
        unk_token="__unk__",
        pad_token="__null__",
        bos_token="__start__",
        eos_token="__end__",
    ),
    "CTRLTokenizer": _paired("CTRLTokenizer", "@@", unk_token="<unk>", pad_token="<pad>", eos_token="</s>"),
    "GPTNeoXJapaneseTokenizer": _japanese,
    "GPTSw3Tokenizer": _pieced("GPTSw3Tokenizer", pad_id=3),
    "M2M100Tokenizer": _m2m,
    "MarianTokenizer": _marian,
    "PLBartTokenizer": _pieced("PLBartTokenizer", pad_id=3),
    "PegasusTokenizer": _pegasus,
    "ProphetNetTokenizer": _prophetnet,
    "RoCBertTokenizer": _roc_bert,
    "Speech2TextTokenizer": _spoken,
    "SpeechT5Tokenizer": _pieced("SpeechT5Tokenizer", model_type="char", pad_id=3),
}
"""Tokenizer classes that only read files."""
