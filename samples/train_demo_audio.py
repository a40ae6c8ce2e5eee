"""Trains the sample model `demo-audio` from nothing, on the CPU.

    python -m samples.train_demo_audio [--out samples/demo-audio] [--steps …] [--threads 1]

An Audio Spectrogram Transformer learns to tell the ten kinds of `samples.inputs.sounds` apart.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples.training import SEED, Card, Plan, arguments, fit, share_right  # isort: skip

import torch
from torch.nn.functional import cross_entropy
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from samples.inputs.sounds import LABELS, RATE, Waveform, draw_sound, silence
from samples.train_demo_text import replacing

PLAN = Plan(steps=700)
BATCH = 48
MELS, FRAMES = 64, 208
WIDTH = 96
EXAMINED = 500

CARD = Card(
    name="demo-audio",
    script="train_demo_audio",
    pipeline_tag="audio-classification",
    purpose=(
        f"An Audio Spectrogram Transformer that can be right or wrong: it tells {len(LABELS)} kinds of sounds apart "
        f"({', '.join(LABELS)}). It exists so that a serving platform can be tried without a download."
    ),
    data="`samples/inputs/sounds.py` makes all sounds; of each kind, one region in five of pitch and pace is held out.",
    examined=f"{EXAMINED} sounds from the held-out regions.",
    limits="It hears the first two seconds, and gives one of its labels to any sound, known or not, and to silence.",
)


def build_processor() -> ASTFeatureExtractor:
    """Build the feature extractor."""
    return ASTFeatureExtractor(num_mel_bins=MELS, max_length=FRAMES, sampling_rate=RATE)


def build_model() -> ASTForAudioClassification:
    """Build the untrained model."""
    config = ASTConfig(
        num_mel_bins=MELS,
        max_length=FRAMES,
        frequency_stride=16,
        time_stride=8,
        hidden_size=WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    return ASTForAudioClassification(config)


def batches(processor: ASTFeatureExtractor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield features, (batch, frames, mels), and the index of each label, (batch,)."""
    rng = random.Random(f"training {SEED}")
    while True:
        sounds = [draw_sound(rng, held_out=False) for _ in range(BATCH)]
        features = encode(processor, [sound.audio for sound in sounds])
        yield features, torch.tensor([LABELS.index(sound.label) for sound in sounds])


def encode(processor: ASTFeatureExtractor, audio: Sequence[Waveform]) -> torch.Tensor:
    """Turn recordings into features, (batch, frames, mels)."""
    features: torch.Tensor = processor(list(audio), sampling_rate=RATE, return_tensors="pt").input_values
    return features


@torch.inference_mode()
def classify(model: ASTForAudioClassification, processor: ASTFeatureExtractor, audio: Sequence[Waveform]) -> list[str]:
    """Name the kind of each sound."""
    winners = model(encode(processor, audio)).logits.argmax(-1)
    return [model.config.id2label[int(index)] for index in winners]


def examine(model: ASTForAudioClassification, processor: ASTFeatureExtractor) -> dict[str, float]:
    """Measure the share of held-out sounds named rightly, as they are and silenced."""
    rng = random.Random("exam")
    sounds = [draw_sound(rng, held_out=True, label=LABELS[index % len(LABELS)]) for index in range(EXAMINED)]
    recordings = {
        "Held-out sounds": [sound.audio for sound in sounds],
        "Silence in their place": [silence(rng) for _ in sounds],
    }
    labels = [sound.label for sound in sounds]
    return {name: share_right(classify(model, processor, audio), labels) for name, audio in recordings.items()}


def main() -> None:
    """Train, examine and write the model."""
    chosen = arguments("Train the sample model demo-audio.", PLAN, Path(__file__).parent / CARD.name)
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
