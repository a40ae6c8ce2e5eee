"""Teaches `demo-document` where to look while it trains; nothing of it is left in the model afterwards.

From random weights a transformer is slow to find that a question's words stand on the page too, and that
a value belongs to the label beside it. Here both are made easy: the same words attend to each other from
the start ("mimetic" weights, Trockman and Kolter, 2023), and the loss says which label is asked for and
which label each value belongs to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import embedding, log_softmax
from transformers import BatchEncoding, LayoutLMv3ForQuestionAnswering

from samples.inputs.forms import Form

NOT_A_FIELD = -1
# How large words, places and queries are at the start; words must be heard over their places.
WORDS, PLACES, QUERIES = 0.3, 0.1, 0.07
# After so many layers the label asked for is marked; in this layer the first head looks from values to labels.
MARKED, LOOKING = 2, 2
# The tables of relative places, and from where on all distances are one.
TABLES = {"rel_pos_bias": 128, "rel_pos_x_bias": 256, "rel_pos_y_bias": 256}


@dataclass(frozen=True)
class Truth:
    """What is true of a batch, by token.

    `answers` are the first and last token of each answer, (batch, 2); `asked` marks the label that is asked
    for, (batch, length); both are the first token of all where the page lacks the field. `values` and `labels`
    number the fields of tokens, (batch, length), or are `NOT_A_FIELD`.
    """

    answers: torch.Tensor
    asked: torch.Tensor
    values: torch.Tensor
    labels: torch.Tensor


def find_truth(inputs: BatchEncoding, forms: Sequence[Form], keys: Sequence[str]) -> Truth:
    """Find the tokens of all labels and values, and of those that are asked for."""
    values, labels = (torch.full_like(inputs.input_ids, NOT_A_FIELD) for _ in range(2))
    answers, asked = [], []
    for row, (form, key) in enumerate(zip(forms, keys, strict=True)):
        places = zip(inputs.word_ids(row), inputs.sequence_ids(row), strict=True)
        words = torch.tensor([word if part == 1 else NOT_A_FIELD for word, part in places])
        for index, name in enumerate(form.spans):
            for table, (first, last) in ((values, form.spans[name]), (labels, form.labels[name])):
                table[row, (words >= first) & (words <= last)] = index
        if key in form.spans:
            index = list(form.spans).index(key)
            tokens = (values[row] == index).nonzero()
            answers.append((int(tokens[0]), int(tokens[-1])))
            asked.append(labels[row] == index)
        else:
            answers.append((0, 0))
            asked.append(torch.arange(len(words)) == 0)
    return Truth(torch.tensor(answers), torch.stack(asked), values, labels)


def waves(count: int, width: int) -> torch.Tensor:
    """Describe whole numbers by sines and cosines of growing length, (count, width)."""
    lengths = 4.0 * 400.0 ** (torch.arange(width // 2) / (width // 2))
    angles = torch.arange(count)[:, None] * (2 * torch.pi / lengths)
    return torch.cat([angles.sin(), angles.cos()], dim=1) * 2**0.5


def prime(model: LayoutLMv3ForQuestionAnswering) -> None:
    """Set out from weights by which same words attend to each other and near places look alike."""
    embeddings = model.layoutlmv3.embeddings
    for name in ("position", *(f"{edge}_position" for edge in "xyhw")):
        table = getattr(embeddings, f"{name}_embeddings").weight
        table.data = PLACES * waves(*table.shape)
    embeddings.word_embeddings.weight.data *= WORDS / embeddings.word_embeddings.weight.std()
    for layer in model.layoutlmv3.encoder.layer:
        attention = layer.attention.self
        attention.query.weight.data *= QUERIES / attention.query.weight.std()
        attention.key.weight.data = attention.query.weight.data.clone()


class Guide(nn.Module):
    """Says where to look, and learns the biases of relative places, which transformers gives no gradient."""

    def __init__(self, model: LayoutLMv3ForQuestionAnswering) -> None:
        super().__init__()
        config, encoder = model.config, model.layoutlmv3.encoder
        heads = config.num_attention_heads
        # The model divides biases by this; they have to grow large enough to rule places out.
        self.scale = 4 * (config.hidden_size / heads) ** 0.5
        self.tables = nn.ModuleDict({name: nn.Embedding(getattr(encoder, name).in_features, heads) for name in TABLES})
        for table in self.tables.values():
            nn.init.zeros_(table.weight)
        self.asked = nn.Linear(config.hidden_size, 1)
        self.steps = encoder.relative_position_bucket
        encoder._cal_1d_pos_emb = lambda positions: self._biases("rel_pos_bias", positions)
        encoder._cal_2d_pos_emb = lambda boxes: (
            self._biases("rel_pos_x_bias", boxes[..., 0]) + self._biases("rel_pos_y_bias", boxes[..., 3])
        )

    def _biases(self, name: str, places: torch.Tensor) -> torch.Tensor:
        """Return the bias of each pair of places, (batch, heads, length, length)."""
        weight = self.tables[name].weight
        apart = places[:, None, :] - places[:, :, None]
        steps = self.steps(apart, num_buckets=len(weight), max_distance=TABLES[name])
        return self.scale * embedding(steps, weight).permute(0, 3, 1, 2)

    def forward(self, out: Any, truth: Truth) -> torch.Tensor:
        """Return the loss of the label that is marked and of where values look."""
        length = truth.asked.shape[1]
        scores = self.asked(out.hidden_states[MARKED][:, :length]).squeeze(-1)
        marked = log_softmax(scores, dim=-1).masked_fill(~truth.asked, -torch.inf).logsumexp(-1)
        owned = (truth.values[:, :, None] == truth.labels[:, None, :]) & (truth.values[:, :, None] != NOT_A_FIELD)
        looks = out.attentions[LOOKING][:, 0, :length, :length]
        seen = (looks * owned).sum(-1)[truth.values != NOT_A_FIELD]
        return -marked.mean() - seen.clamp_min(1e-6).log().mean()

    def hand_over(self, model: LayoutLMv3ForQuestionAnswering) -> None:
        """Write the biases into the model and let go of it."""
        encoder = model.layoutlmv3.encoder
        del encoder._cal_1d_pos_emb, encoder._cal_2d_pos_emb
        for name, table in self.tables.items():
            getattr(encoder, name).weight.data = self.scale * table.weight.detach().T.contiguous()
