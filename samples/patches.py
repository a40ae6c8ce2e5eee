"""Teaches a vision tower to see, patch by patch, before and while a language model learns to say it.

The answers to questions are few and come late; what each patch shows is known at once, since the pictures
are drawn. The head that tells it is thrown away after training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss

from samples.inputs.scenes import COLOURS, SHAPES, Mark

NOTHING = 0


@dataclass(frozen=True)
class Labels:
    """What patches show: shapes and colours, (pictures, patches), 0 for none; middles, of which each shape has one
    in all, (pictures, patches); and place and radius of the shape, (pictures, patches, 3), in shares of the side.
    """

    shapes: torch.Tensor
    colours: torch.Tensor
    middles: torch.Tensor
    poses: torch.Tensor


def label(pictures: Sequence[Sequence[Mark]], side: int, patch: int, reach: float = 1) -> Labels:
    """Tell what each patch of some pictures shows, from the marks of their shapes in pixels.

    A shape counts as far as `reach` pixels beyond its radius; where a picture has only one, that may be everywhere.
    """
    count = side // patch
    axis = (torch.arange(count) + 0.5) * patch
    ys, xs = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    size = (len(pictures), count**2)
    shapes, colours = (torch.full(size, NOTHING) for _ in range(2))
    middles, poses = torch.zeros(size), torch.zeros(*size, 3)
    for index, marks in enumerate(pictures):
        for mark in marks:
            across, down = xs - mark.at[0], ys - mark.at[1]
            covered = across**2 + down**2 < (mark.radius + reach) ** 2
            shapes[index, covered] = 1 + SHAPES.index(mark.shape)
            colours[index, covered] = 1 + list(COLOURS).index(mark.colour)
            poses[index, covered] = torch.tensor([*mark.at, mark.radius]) / side
            # A middle between patches belongs to each in part, so that the sum is the number of shapes.
            share = (1 - across.abs() / patch).clamp(min=0) * (1 - down.abs() / patch).clamp(min=0)
            middles[index] += share / share.sum()
    return Labels(shapes, colours, middles, poses)


class Patches(nn.Module):
    """Says of each patch which shape covers it, in which colour, and where that shape is."""

    def __init__(self, width: int, side: int, patch: int, reach: float = 1) -> None:
        super().__init__()
        self.side, self.patch, self.reach = side, patch, reach
        self.parts = (len(SHAPES) + 1, len(COLOURS) + 1, 1, 3)
        self.say = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(self.parts)))

    def forward(self, hidden: torch.Tensor, pictures: Sequence[Sequence[Mark]]) -> torch.Tensor:
        """Return the loss of a tower's last hidden states, (pictures, 1 + patches, width)."""
        labels = label(pictures, self.side, self.patch, self.reach)
        shapes, colours, middles, poses = self.say(hidden[:, 1:]).split(self.parts, dim=-1)
        covered = (labels.shapes != NOTHING)[..., None]
        return (
            cross_entropy(shapes.flatten(0, 1), labels.shapes.flatten())
            + cross_entropy(colours.flatten(0, 1), labels.colours.flatten())
            # Most patches hold no middle: their errors are small, and count for more.
            + 30 * mse_loss(middles[..., 0], labels.middles)
            + 30 * mse_loss(poses * covered, labels.poses)
        )
