"""Trains the sample model `demo-image` from nothing, on the CPU.

    python -m samples.train_demo_image [--out samples/demo-image] [--steps …] [--threads 1]

A small ResNet learns to name the ten things of `samples.inputs.things`. Its processor needs torchvision.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples.training import SEED, Card, Plan, arguments, fit, share_right  # isort: skip

import torch
from PIL.Image import Image
from torch.nn.functional import cross_entropy
from transformers import ConvNextImageProcessor, ResNetConfig, ResNetForImageClassification

from samples.inputs.things import LABELS, draw_thing, nothing
from samples.train_demo_text import replacing

PLAN = Plan(steps=2400)
BATCH = 48
SIDE = 64
EXAMINED = 1000

CARD = Card(
    name="demo-image",
    script="train_demo_image",
    pipeline_tag="image-classification",
    purpose=(
        f"A ResNet that can be right or wrong: it tells which of {len(LABELS)} drawn things is in a picture "
        f"({', '.join(LABELS)}). It exists so that a serving platform can be tried without a download."
    ),
    data=(
        "`samples/inputs/things.py` draws all pictures; one combination in five of thing, colour and size is held out."
    ),
    examined=f"{EXAMINED} pictures of held-out combinations.",
    limits="It knows these drawings alone, and gives one of its labels to any picture, also to one of nothing.",
)


def build_processor() -> ConvNextImageProcessor:
    """Build the image processor: the shorter side to 64 pixels, and the middle of what is wider than high."""
    return ConvNextImageProcessor(size={"shortest_edge": SIDE}, crop_pct=1.0)


def build_model() -> ResNetForImageClassification:
    """Build the untrained model."""
    config = ResNetConfig(
        embedding_size=24,
        hidden_sizes=[24, 40, 72, 112],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    return ResNetForImageClassification(config)


def batches(processor: ConvNextImageProcessor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield pixel values, (batch, 3, side, side), and the index of each label, (batch,)."""
    rng = random.Random(f"training {SEED}")
    while True:
        things = [draw_thing(rng, held_out=False) for _ in range(BATCH)]
        pixels = encode(processor, [thing.image for thing in things])
        yield pixels, torch.tensor([LABELS.index(thing.label) for thing in things])


def encode(processor: ConvNextImageProcessor, images: Sequence[Image]) -> torch.Tensor:
    """Turn pictures into pixel values, (batch, 3, side, side)."""
    pixels: torch.Tensor = processor(list(images), return_tensors="pt").pixel_values
    return pixels


@torch.inference_mode()
def classify(
    model: ResNetForImageClassification, processor: ConvNextImageProcessor, images: Sequence[Image]
) -> list[str]:
    """Name what is in each picture."""
    winners = model(encode(processor, images)).logits.argmax(-1)
    return [model.config.id2label[int(index)] for index in winners]


def examine(model: ResNetForImageClassification, processor: ConvNextImageProcessor) -> dict[str, float]:
    """Measure the share of held-out things named rightly, as they are and with nothing in their place."""
    rng = random.Random("exam")
    things = [draw_thing(rng, held_out=True, label=LABELS[index % len(LABELS)]) for index in range(EXAMINED)]
    pictures = {
        "Held-out pictures": [thing.image for thing in things],
        "Nothing in their place": [nothing(rng) for _ in things],
    }
    labels = [thing.label for thing in things]
    return {name: share_right(classify(model, processor, images), labels) for name, images in pictures.items()}


def main() -> None:
    """Train, examine and write the model."""
    chosen = arguments("Train the sample model demo-image.", PLAN, Path(__file__).parent / CARD.name)
    processor, model = build_processor(), build_model()
    print(f"{model.num_parameters():,} parameters")
    minutes = fit(
        (model,),
        batches(processor),
        lambda batch: cross_entropy(model(batch[0]).logits, batch[1]),
        Plan(steps=chosen.steps),
    )
    model.eval()
    with replacing(chosen.out) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        CARD.write(folder, model, minutes, examine(model, processor))
    print(f"wrote {chosen.out} after {minutes:.1f} min of training")


if __name__ == "__main__":
    main()
