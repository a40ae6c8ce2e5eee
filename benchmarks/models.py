"""`python -m benchmarks.models FOLDER`: makes the models and the inputs of W2 and W3; random weights, always the same.

They are made once and kept: `resnet/` (25.6 M parameters), `llama/` (15 M), `images.json`, `prompts.json`.
"""

import base64
import io
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RECIPE = "1"
"""Changed with what is made here, so that what an older recipe made is not taken."""
IMAGES = 16
MIXED = 48
NEW_TOKENS = 64
_VOCABULARY = 6144
_CONTEXT = 1024


def made(cache: Path) -> Path:
    """Returns the folder with models and inputs; what is missing is made first, in another process."""
    folder = cache / f"models-{RECIPE}"
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "benchmarks.models", str(folder)], check=True)
    return folder


def inputs(folder: Path, name: str) -> Any:
    """Returns `images` (base64 of JPEG files) or `prompts`."""
    return json.loads((folder / f"{name}.json").read_text())


def make(folder: Path) -> None:
    """Makes everything."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    _resnet(folder / "resnet")
    tokenizer = _llama(folder / "llama")
    (folder / "images.json").write_text(json.dumps([_picture(number) for number in range(IMAGES)]))
    (folder / "prompts.json").write_text(json.dumps(_prompts(tokenizer)))
    (folder / "done").touch()


def _resnet(folder: Path) -> None:
    """Saves an image classifier of ResNet-50's size, with the image processor that ResNet-50 comes with."""
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

    labels = {number: f"label {number}" for number in range(1000)}
    config = ResNetConfig(id2label=labels, label2id={label: number for number, label in labels.items()})
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875).save_pretrained(folder)


def _llama(folder: Path) -> Any:
    """Saves a Llama of 15 M parameters that never ends an answer by itself; returns its tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=_CONTEXT,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    return tokenizer


def _tokenizer() -> Any:
    """Trains a byte-level BPE tokenizer on the English prose that comes with Python."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_prose(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        padding_side="left",
        model_max_length=_CONTEXT,
    )


def _prose() -> Sequence[str]:
    from pydoc_data.topics import topics

    return [text for _, text in sorted(topics.items())]


def _picture(seed: int) -> str:
    """Returns a JPEG of 224×224 pixels as base64: soft shapes and some grain, about as large as a photograph's."""
    import numpy as np
    from PIL import Image

    numbers = np.random.default_rng(seed)
    coarse = Image.fromarray(numbers.integers(0, 256, (14, 14, 3), dtype=np.uint8)).resize(
        (224, 224), Image.Resampling.BICUBIC
    )
    grain = numbers.normal(0, 3, (224, 224, 1))
    pixels = np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()


def _prompts(tokenizer: Any) -> dict[str, Any]:
    """Returns `fixed` (16 prompts of 32 tokens) and `mixed` (prompts of 8–200 tokens that ask for 16–128 new ones)."""
    chance = random.Random(0)
    ids = tokenizer("\n".join(_prose()))["input_ids"]
    mixed = [
        {"text": _cut(tokenizer, ids, chance, chance.randint(8, 200)), "new_tokens": chance.randint(16, 128)}
        for _ in range(MIXED)
    ]
    return {"fixed": [_cut(tokenizer, ids, chance, 32) for _ in range(16)], "mixed": mixed}


def _cut(tokenizer: Any, ids: Sequence[int], chance: random.Random, length: int) -> str:
    """Returns a text that the tokenizer makes exactly so many tokens of."""
    while True:
        start = chance.randrange(len(ids) - length)
        text: str = tokenizer.decode(ids[start : start + length])
        if len(tokenizer(text)["input_ids"]) == length:
            return text


if __name__ == "__main__":
    make(Path(sys.argv[1]))
