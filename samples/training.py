"""What the training scripts of the media samples share: seeds, optimisers, the loop, the model's card.

Muon takes the matrices of the layers, AdamW all else; Muon needs about half of AdamW's steps here.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

# Threads that spin while they wait starve each other as soon as other work shares the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from safetensors.torch import load_file, save_file
from torch import nn

SEED = 0
Batch = TypeVar("Batch")
CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: {pipeline_tag}
---

# {name}

{purpose}

## How it was trained

From random weights on the CPU, in {minutes:.0f} minutes of one core, with
`python -m samples.{script}`: {parameters:,} parameters stored in {dtype}. {data}

## How well it does

{examined}

| | Exactly right |
|---|---|
{scores}

## Limits

{limits}
"""


@dataclass(frozen=True)
class Plan:
    """How long to train, and how fast the weights move; the rates fall to nothing by the last step."""

    steps: int
    matrix_rate: float = 0.02
    vector_rate: float = 0.003
    warmup: int = 100
    weight_decay: float = 0.02


@dataclass(frozen=True)
class Card:
    """The words of a model's card; the figures are measured."""

    name: str
    script: str
    pipeline_tag: str
    purpose: str
    data: str
    examined: str
    limits: str

    def write(self, folder: Path, model: nn.Module, minutes: float, scores: Mapping[str, float]) -> None:
        """Write the card into a model's folder as `README.md`."""
        stored = load_file(folder / "model.safetensors").values()
        # Batch norms also count, in whole numbers, what they have seen.
        (dtype,) = {str(tensor.dtype)[6:] for tensor in stored if tensor.is_floating_point()}
        rows = "\n".join(f"| {name} | {score:.1%} |" for name, score in scores.items())
        parameters = sum(p.numel() for p in model.parameters())
        measured = {"parameters": parameters, "dtype": dtype, "minutes": minutes, "scores": rows}
        card = CARD.format(**vars(self) | measured)
        (folder / "README.md").write_text(card, encoding="utf-8")
        print("\n".join(f"{name}: {score:.3f}" for name, score in scores.items()), flush=True)


def arguments(description: str, plan: Plan, out: Path) -> argparse.Namespace:
    """Read `--out`, `--steps` and `--threads`, and fix the seed and the threads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=out)
    parser.add_argument("--steps", type=int, default=plan.steps)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    # What a sure model leaves of its other choices is too small for normal numbers, and four times as slow.
    torch.set_flush_denormal(True)
    torch.manual_seed(SEED)
    return chosen


def share_right(replies: Sequence[str], truths: Sequence[str]) -> float:
    """Measure the share of replies that are right to the letter."""
    return sum(map(str.__eq__, replies, truths)) / len(truths)


def halve(folder: Path) -> None:
    """Store a saved model's weights in float16; they are still loaded in float32, as its config says."""
    weights = folder / "model.safetensors"
    smaller = weights.with_suffix(".half")
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, smaller, metadata={"format": "pt"})
    smaller.replace(weights)


def build_optimizers(modules: Sequence[nn.Module], plan: Plan) -> list[torch.optim.Optimizer]:
    """Give the matrices of linear layers to Muon, and embeddings, norms, biases and kernels to AdamW."""
    linear = [m.weight for module in modules for m in module.modules() if isinstance(m, nn.Linear)]
    embedded = {id(m.weight) for module in modules for m in module.modules() if isinstance(m, nn.Embedding)}
    matrices = list({id(p): p for p in linear if p.requires_grad and id(p) not in embedded}.values())
    chosen = {id(p) for p in matrices}
    others = [p for module in modules for p in module.parameters() if p.requires_grad and id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=plan.matrix_rate, weight_decay=plan.weight_decay),
        torch.optim.AdamW(others, lr=plan.vector_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def fit(
    modules: Sequence[nn.Module], batches: Iterator[Batch], loss_of: Callable[[Batch], torch.Tensor], plan: Plan
) -> float:
    """Train for the plan's steps and return the minutes of processor time that they took."""
    optimizers = build_optimizers(modules, plan)
    groups = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for module in modules for p in module.parameters()]
    start, mean = time.process_time(), 0.0
    for step, batch in zip(range(plan.steps), batches, strict=False):
        for group, rate in groups:
            group["lr"] = rate * min(1.0, (step + 1) / plan.warmup, 1.2 * (1 - step / plan.steps))
        loss = loss_of(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        mean += (loss.item() - mean) * max(0.02, 1 / (step + 1))
        if step % 100 == 0:
            print(f"step {step:5}/{plan.steps}  loss {mean:.4f}  {time.process_time() - start:4.0f} s cpu", flush=True)
    return (time.process_time() - start) / 60
