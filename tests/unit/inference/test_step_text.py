"""Pieces of an answer's text as its tokens come: nothing is cut in two, and together they are the whole."""

import random
from collections.abc import Sequence
from typing import Any

import pytest

pytestmark = pytest.mark.xdist_group("torch")

TEXT = "Grüße, 世界! 你好嗎？ 👩‍🚀 flies to 🌍 \n\tand back: naïve café, 数据 Ω≈ç√ — done."
BROKEN = "\ufffd"


def byte_level(**kwargs: Any) -> Any:
    """One token a byte, so that most characters are made of several."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(["<pad>", "</s>", *letters])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", **kwargs)


def byte_fallback() -> Any:
    """Words begin with ▁ and what has no token falls to bytes, as in Llama 2; a blank before the first is taken off."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    names = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz,.", "▁sea"]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


def word_pieces() -> Any:
    """Words and their parts, put together with blanks that are cleaned away before signs."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    names = ["[UNK]", "[SEP]", "i", "do", "n", "'", "t", "know", "##ing", "sail", ".", ",", "!", "s", "m", "re", "ve"]
    tokenizer = Tokenizer(models.WordPiece({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", sep_token="[SEP]", clean_up_tokenization_spaces=True
    )


def pieces_of(tokenizer: Any, ids: Sequence[int], stop: Sequence[str] = (), *, skip: bool = True) -> list[str]:
    from src.inference.engines.transformers.step_text import TextPieces

    said: list[str] = []
    pieces = TextPieces(tokenizer, stop, skip, said.append)
    for token in ids:
        pieces.put([token])
    pieces.end()
    return said


def test_each_character_leaves_whole_and_at_once() -> None:
    tokenizer = byte_level()
    said = pieces_of(tokenizer, tokenizer(TEXT)["input_ids"])
    assert said == list(TEXT)


@pytest.mark.parametrize("make", [byte_level, byte_fallback, word_pieces])
@pytest.mark.parametrize("seed", range(4))
def test_pieces_of_random_tokens_join_to_what_all_tokens_decode_to(make: Any, seed: int) -> None:
    tokenizer, chance = make(), random.Random(seed)
    ids = [chance.randrange(len(tokenizer)) for _ in range(300)]
    for length in (1, 2, 7, 40, 300):
        assert "".join(pieces_of(tokenizer, ids[:length])) == tokenizer.decode(ids[:length], skip_special_tokens=True)


@pytest.mark.parametrize("make", [byte_level, byte_fallback])
@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_a_long_text_that_ends_within_a_character_comes_whole(make: Any, lost: int) -> None:
    tokenizer = make()
    ids = tokenizer((TEXT.replace(" ", "") + "sea,") * 12 + "界")["input_ids"]
    ids = ids[: len(ids) - lost]
    said = pieces_of(tokenizer, ids)
    assert "".join(said) == tokenizer.decode(ids, skip_special_tokens=True)
    assert BROKEN not in "".join(said[:-1])
    assert len(said) > 100


def test_characters_of_bytes_wait_until_nothing_can_take_them_back() -> None:
    tokenizer = byte_fallback()
    ids = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in "世界".encode()]
    end = tokenizer.convert_tokens_to_ids("a")
    assert pieces_of(tokenizer, [*ids, end, end]) == ["世界a", "a"]
    # A run that never comes to its end reads differently from its beginning on.
    assert pieces_of(tokenizer, ids[:-1]) == [BROKEN * 5]


def test_blanks_that_signs_take_away_are_not_emitted_before() -> None:
    tokenizer = word_pieces()
    ids = tokenizer.convert_tokens_to_ids(["i", "do", "n", "'", "t", "know", ".", "sail", "##ing", "i", "'", "m", "!"])
    said = pieces_of(tokenizer, ids)
    assert "".join(said) == tokenizer.decode(ids)
    assert len(said) > 2


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["sea"], "by the "),
        (["he s"], "by t"),
        (["xyz", "the sea"], "by "),
        (["sell", "e sea sh"], "by th"),
        (["shells"], "by the sea "),
        (["shells!"], "by the sea shells"),
        (["by"], ""),
    ],
)
def test_a_stop_text_and_its_beginning_are_never_emitted(stop: list[str], text: str) -> None:
    tokenizer = byte_level()
    said = pieces_of(tokenizer, tokenizer("by the sea shells")["input_ids"], stop)
    assert "".join(said) == text


def test_what_only_looked_like_a_stop_text_is_emitted_in_the_end() -> None:
    tokenizer = byte_level()
    said = pieces_of(tokenizer, tokenizer("aababab aabX")["input_ids"], ["aabb", "abX!"])
    assert "".join(said) == "aababab aabX"
    assert said[0] == "aab"
    assert said[-1] == "abX"


def test_special_tokens_are_left_out_or_kept() -> None:
    tokenizer = byte_level()
    ids = [*tokenizer("a")["input_ids"], tokenizer.eos_token_id, *tokenizer("b")["input_ids"]]
    assert pieces_of(tokenizer, ids) == ["a", "b"]
    assert "".join(pieces_of(tokenizer, ids, skip=False)) == "a</s>b"


def test_old_tokens_are_not_decoded_at_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = byte_level()
    decoded: list[int] = []
    decode = tokenizer.decode
    monkeypatch.setattr(
        type(tokenizer), "decode", lambda self, ids, **kwargs: decoded.append(len(ids)) or decode(ids, **kwargs)
    )
    pieces_of(tokenizer, tokenizer("x" * 1000)["input_ids"])
    assert max(decoded[:-1]) <= 60
    assert decoded[-1] == 1000


def test_the_streamer_of_generate_leaves_the_prompt_out() -> None:
    import torch

    from src.inference.engines.transformers.step_text import TextPieces, TokenPieces

    tokenizer, said = byte_level(), list[str]()
    streamer = TokenPieces(TextPieces(tokenizer, (), True, said.append))
    streamer.put(tokenizer("prompt", return_tensors="pt")["input_ids"])
    for token in tokenizer("é!")["input_ids"]:
        streamer.put(torch.tensor([token]))
    assert said == ["é", "!"]
    streamer.end()
    assert said == ["é", "!"]
