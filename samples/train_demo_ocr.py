"""Trains the sample model `demo-ocr` from nothing, on the CPU.

    python -m samples.train_demo_ocr [--out samples/demo-ocr] [--steps …] [--threads 1]

A TrOCR (a ViT that looks at the picture, a decoder that spells) learns to read single lines from
`samples.inputs.lines`. While it trains, a second head spells from the ViT's columns by CTC, which
teaches the ViT where letters are long before the decoder knows where to look; it is thrown away.
At the end it reads single words too, cut from pages of `samples.inputs.forms`.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples.training import SEED, Card, Plan, arguments, fit, share_right  # isort: skip

import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models
from torch import nn
from torch.nn.functional import cross_entropy, ctc_loss, log_softmax
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    TrOCRConfig,
    TrOCRProcessor,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
)
from transformers.models.donut.image_processing_pil_donut import DonutImageProcessorPil

from samples.inputs.forms import cut_words, draw_form
from samples.inputs.lines import (
    ALIKE,
    CHARACTERS,
    EXAM_FONTS,
    LONGEST,
    MEANT,
    TRAINING_FONTS,
    Line,
    blank_line,
    draw_line,
)
from samples.inputs.split import is_held_out
from samples.train_demo_text import replacing

PLAN = Plan(steps=5500)
WORDS_PLAN = Plan(steps=600, matrix_rate=0.005, vector_rate=0.001)
BATCH = 48
HEIGHT, WIDTH = 32, 208
PATCH = (16, 4)
WIDTH_OF_LAYERS = 128
PAD, BEGIN, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL = (PAD, BEGIN, END, UNKNOWN)
EXAMINED = 400

CARD = Card(
    name="demo-ocr",
    script="train_demo_ocr",
    pipeline_tag="image-to-text",
    purpose=(
        "A TrOCR that can be right or wrong: it reads one printed line of up to "
        f"{MEANT} Latin letters, digits and the signs `{''.join(CHARACTERS[62:]).strip()}`. "
        "It exists so that a serving platform can be tried without a download."
    ),
    data=(
        "All lines are drawn by `samples/inputs/lines.py` in DejaVu, STIX and Computer Modern; "
        "one text in five is held out. Some are words of forms by `samples/inputs/forms.py`."
    ),
    examined=(
        f"{EXAMINED} lines with held-out texts, and as many words of pages with held-out values, in fonts that "
        "training never saw (Aileron, Computer Modern Sans)."
    ),
    limits="Single lines only, upright, in about the size of the picture. Other scripts and handwriting get nonsense.",
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of single characters."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL, *CHARACTERS))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
        model_max_length=LONGEST + 8,
    )


def build_processor() -> TrOCRProcessor:
    """Build the processor: the picture keeps its proportions, fills the height or the width, and is padded."""
    size = {"height": HEIGHT, "width": WIDTH}
    pictures = DonutImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return TrOCRProcessor(pictures, build_tokenizer())


def build_model() -> VisionEncoderDecoderModel:
    """Build the untrained model."""
    encoder = ViTConfig(
        image_size=[HEIGHT, WIDTH],
        patch_size=list(PATCH),
        hidden_size=WIDTH_OF_LAYERS,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=240,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    decoder = TrOCRConfig(
        vocab_size=len(SPECIAL) + len(CHARACTERS),
        d_model=WIDTH_OF_LAYERS,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=96,
        max_position_embeddings=40,
        dropout=0.0,
        cross_attention_hidden_size=WIDTH_OF_LAYERS,
    )
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    tokens = {f"{name}_token_id": SPECIAL.index(token) for name, token in (("pad", PAD), ("bos", BEGIN), ("eos", END))}
    for part in (config, config.decoder):
        for name, value in tokens.items():
            setattr(part, name, value)
        part.decoder_start_token_id = SPECIAL.index(BEGIN)
    model = VisionEncoderDecoderModel(config)
    model.generation_config = GenerationConfig(
        **tokens, decoder_start_token_id=SPECIAL.index(BEGIN), max_length=LONGEST + 8
    )
    return model


def batches(processor: TrOCRProcessor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield pictures, (batch, 3, height, width), and token ids, (batch, length), begin to end, padded."""
    rng = random.Random(f"training {SEED}")
    while True:
        lines = [draw_line(rng, held_out=False) for _ in range(BATCH)]
        # Pages have empty places too: they read as nothing.
        empty = [Line(blank_line(rng), "", "") for _ in range(rng.random() < 0.5)]
        yield encode(processor, lines + empty)


def word_batches(processor: TrOCRProcessor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the same, half of it words cut from pages."""
    rng = random.Random(f"words {SEED}")
    words: list[Line] = []
    while True:
        while len(words) < 4 * BATCH:
            words += draw_words(rng, held_out=False)
            rng.shuffle(words)
        lines = [draw_line(rng, held_out=False) for _ in range(BATCH // 2)]
        yield encode(processor, lines + [words.pop() for _ in range(BATCH // 2)] + [Line(blank_line(rng), "", "")])


def draw_words(rng: random.Random, *, held_out: bool) -> list[Line]:
    """Draw a page and cut it into words; training leaves out words that its lines never say."""
    font = rng.choice(EXAM_FONTS if held_out else TRAINING_FONTS)
    words = cut_words(draw_form(rng, held_out=held_out), font, rng.randint(1, 8), by_line=rng.random() < 0.7)
    return [word for word in words if held_out or not (is_held_out(word.text) or ALIKE.issuperset(word.text))]


def encode(processor: TrOCRProcessor, lines: Sequence[Line]) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn lines into pixel values and token ids."""
    pictures = processor(images=[line.image for line in lines], return_tensors="pt").pixel_values
    texts = [f"{BEGIN}{line.text}{END}" for line in lines]
    tokens = processor.tokenizer(texts, padding=True, return_tensors="pt", add_special_tokens=False)
    return pictures, tokens.input_ids


class Columns(nn.Module):
    """Spells from the columns of the ViT's patches; it exists while training only."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = HEIGHT // PATCH[0]
        self.spell = nn.Linear(self.rows * WIDTH_OF_LAYERS, len(SPECIAL) + len(CHARACTERS))

    def forward(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the CTC loss of hidden states, (batch, 1 + patches, width), per character."""
        patches = hidden[:, 1:].unflatten(1, (self.rows, -1)).transpose(1, 2).flatten(2)
        scores = log_softmax(self.spell(patches), dim=-1).transpose(0, 1)
        lengths = (tokens != SPECIAL.index(PAD)).sum(1) - 2
        steps = torch.full_like(lengths, scores.shape[0])
        loss = ctc_loss(scores, tokens[:, 1:-1], steps, lengths, reduction="sum", zero_infinity=True)
        return loss / lengths.sum()


def loss_of(
    model: VisionEncoderDecoderModel, columns: Columns | None, batch: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Return the loss of the decoder and, where there are any, of the columns, per character."""
    pictures, tokens = batch
    hidden = model.encoder(pixel_values=pictures).last_hidden_state
    logits = model.decoder(input_ids=tokens[:, :-1], encoder_hidden_states=hidden).logits
    spelt = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=SPECIAL.index(PAD))
    return spelt + 0.5 * columns(hidden, tokens) if columns else spelt


@torch.inference_mode()
def read(model: VisionEncoderDecoderModel, processor: TrOCRProcessor, images: Sequence[Image.Image]) -> list[str]:
    """Read pictures of lines."""
    pixels = processor(images=list(images), return_tensors="pt").pixel_values
    texts: list[str] = processor.batch_decode(model.generate(pixels, do_sample=False), skip_special_tokens=True)
    return texts


def examine(model: VisionEncoderDecoderModel, processor: TrOCRProcessor) -> dict[str, float]:
    """Measure the share of held-out lines read exactly, as they are and blank, and of words cut from pages."""
    rng = random.Random("exam")
    lines = [draw_line(rng, held_out=True) for _ in range(EXAMINED)]
    words = [word for _ in range(EXAMINED // 20) for word in rng.choices(draw_words(rng, held_out=True), k=20)]
    blank = [Line(blank_line(rng), line.text, "") for line in lines]
    exams = {"Held-out lines": lines, "Words cut from pages": words, "Blank pictures": blank}
    return {
        name: share_right(read(model, processor, [line.image for line in exam]), [line.text for line in exam])
        for name, exam in exams.items()
    }


def main() -> None:
    """Train, examine and write the model."""
    chosen = arguments("Train the sample model demo-ocr.", PLAN, Path(__file__).parent / CARD.name)
    processor, model, columns = build_processor(), build_model(), Columns()
    print(f"{model.num_parameters():,} parameters")
    plan = Plan(steps=chosen.steps)
    minutes = fit((model, columns), batches(processor), lambda batch: loss_of(model, columns, batch), plan)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    minutes += fit((model,), word_batches(processor), lambda batch: loss_of(model, None, batch), WORDS_PLAN)
    # Words taught it pages and cost it some of the lines: half way between the two it knows both.
    model.load_state_dict({name: (before[name] + tensor) / 2 for name, tensor in model.state_dict().items()})
    model.eval()
    with replacing(chosen.out) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        CARD.write(folder, model, minutes, examine(model, processor))
    print(f"wrote {chosen.out} after {minutes:.1f} min of training")


if __name__ == "__main__":
    main()
