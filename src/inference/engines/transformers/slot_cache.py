"""SlotCache: the keys and values of several texts, each in a slot of its own, written in place.

The token at position p of a text stands in column p of its slot. Nothing is copied when a token is added, and texts of
different lengths need no padding: a mask hides the columns that a shorter text has not reached. Where states are
written is told before each forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

# Columns are added by the half of those that are there, in multiples of this.
_COLUMNS = 64


class SlotBuffer:
    """The keys, or the values, of one layer: slots x columns x heads x width."""

    def __init__(self, texts: torch.Tensor) -> None:
        self.texts = texts
        self.columns = texts.shape[1]
        self.flat = texts.view(-1, texts.shape[2] * texts.shape[3])
        """The same, slot behind slot: tokens x (heads x width)."""

    def first(self, slots: int, columns: int) -> torch.Tensor:
        """Returns the beginnings of the first slots as attention wants them: slots x heads x columns x width."""
        _, _, heads, width = self.texts.shape
        slot, column, head, _ = self.texts.stride()
        return self.texts.as_strided((slots, heads, columns, width), (slot, head, column, 1))

    def resized(self, slots: int, columns: int) -> "SlotBuffer":
        """Returns a larger one with what is in this one."""
        # Zeros, since what a mask hides is still multiplied, and memory as it comes may hold what is no number.
        texts = self.texts.new_zeros(slots, columns, *self.texts.shape[2:])
        texts[: self.texts.shape[0], : self.columns] = self.texts
        return SlotBuffer(texts)


class Writing(Protocol):
    """Where the states of one forward pass go, and what they are attended with.

    `past`: tokens that the model is to think it has seen; `total`: the columns that it attends to.
    """

    past: int
    total: int

    def write(self, buffer: SlotBuffer, states: torch.Tensor) -> torch.Tensor:
        """Puts states (texts x heads x tokens x width) into a buffer; returns all that are attended to."""
        ...


class NextTokens:
    """One token of each of the first slots; `positions`: where each stands in its text."""

    def __init__(self, positions: Sequence[int], device: torch.device) -> None:
        self.total = max(positions) + 1
        self.past = self.total - 1
        self.positions = torch.tensor(positions, device=device)
        self.count = len(positions)
        self._slots = torch.arange(self.count, device=device)
        self._columns, self._places = 0, self._slots

    def write(self, buffer: SlotBuffer, states: torch.Tensor) -> torch.Tensor:
        """Returns the columns of these slots up to the longest text's last."""
        if buffer.columns != self._columns:
            self._columns = buffer.columns
            self._places = self._slots * self._columns + self.positions
        buffer.flat.index_copy_(0, self._places, states.reshape(self.count, -1))
        return buffer.first(self.count, self.total)


@dataclass(slots=True)
class Part:
    """The next tokens of one text, `past` of which are there; `total`: how many there are with these."""

    slot: int
    past: int
    total: int

    def write(self, buffer: SlotBuffer, states: torch.Tensor) -> torch.Tensor:
        """Returns the text so far."""
        buffer.texts[self.slot, self.past : self.total] = states[0].transpose(0, 1)
        return buffer.texts[self.slot : self.slot + 1, : self.total].transpose(1, 2)


class Packed:
    """Whole texts one behind the other, as if they were one; `lengths`: their tokens, `first`: the first one's slot."""

    def __init__(self, first: int, lengths: Sequence[int]) -> None:
        self.past, self.total = 0, sum(lengths)
        self._first, self._lengths = first, list(lengths)

    def write(self, buffer: SlotBuffer, states: torch.Tensor) -> torch.Tensor:
        """Returns what came: nothing is older than these texts."""
        texts = states[0].transpose(0, 1).split(self._lengths)
        for slot, text in enumerate(texts, self._first):
            buffer.texts[slot, : len(text)] = text
        return states


class Mixed:
    """Next tokens of the first slots, and behind them, as if all were one text, what is read of prompts."""

    def __init__(self, following: NextTokens, prompts: Part | Packed) -> None:
        self.past, self.total = 0, following.count + prompts.total
        self.following, self.prompts = following, prompts
        self.attended: list[torch.Tensor] = []
        """The keys and the values of the layer at hand that the next tokens are attended with."""

    def write(self, buffer: SlotBuffer, states: torch.Tensor) -> torch.Tensor:
        """Returns what the prompts are attended with."""
        count = self.following.count
        self.attended.append(self.following.write(buffer, states[0, :, :count].transpose(0, 1)))
        return self.prompts.write(buffer, states[:, :, count:])


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values."""

    is_sliding = False
    keys: SlotBuffer | None
    values: SlotBuffer | None

    def __init__(self, cache: "SlotCache") -> None:
        super().__init__()
        self._cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Makes the buffers for states like these."""
        self.keys, self.values = (self._empty(states) for states in (key_states, value_states))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes states where the cache was told to, and returns those to attend to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        write = self._cache.writing.write
        return write(self.keys, key_states), write(self.values, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Returns how many columns are attended to, and the first of them."""
        return self._cache.writing.total, 0

    def get_seq_length(self) -> int:
        """Returns how many tokens came before those that are being written."""
        return self._cache.writing.past

    def get_max_length(self) -> int:
        """Returns that nothing bounds it."""
        return -1

    @property
    def buffers(self) -> list[SlotBuffer]:
        """The keys and the values, once something has been written."""
        return [buffer for buffer in (self.keys, self.values) if buffer is not None]

    def resize(self, slots: int, columns: int) -> None:
        """Makes the buffers larger, with what is in them."""
        self.keys, self.values = (buffer.resized(slots, columns) for buffer in self.buffers)

    def _empty(self, states: torch.Tensor) -> SlotBuffer:
        return SlotBuffer(states.new_zeros(self._cache.slots, self._cache.columns, states.shape[1], states.shape[3]))


class SlotCache(Cache):  # type: ignore[misc]
    """The cache of a model with `layers` layers of full attention; `writing` is set before each forward pass."""

    layers: list[SlotLayer]

    def __init__(self, layers: int) -> None:
        super().__init__(layers=[SlotLayer(self) for _ in range(layers)])
        self.slots, self.columns = 0, 0
        self.writing: Writing = Part(0, 0, 0)

    def reserve(self, slots: int, columns: int) -> None:
        """Makes room for so many texts of so many tokens, beside what is there."""
        if slots <= self.slots and columns <= self.columns:
            return
        if columns > self.columns:
            columns = -(-max(columns, self.columns * 3 // 2) // _COLUMNS) * _COLUMNS
        if slots > self.slots:
            slots = 1 << (slots - 1).bit_length()
        slots, columns = max(slots, self.slots), max(columns, self.columns)
        for layer in self.layers:
            if layer.is_initialized:
                layer.resize(slots, columns)
        # Last, so that after running out of memory half-way the next call does it again.
        self.slots, self.columns = slots, columns

    def move(self, source: int, target: int, length: int) -> None:
        """Copies the first `length` tokens of a text to another slot."""
        for buffer in self._buffers():
            buffer.texts[target, :length] = buffer.texts[source, :length]

    @property
    def token_bytes(self) -> int:
        """The bytes of one token of one text; 0 before the first forward pass."""
        return sum(buffer.flat.shape[1] * buffer.flat.element_size() for buffer in self._buffers())

    @property
    def total_bytes(self) -> int:
        """The bytes of all buffers."""
        return self.slots * self.columns * self.token_bytes

    def _buffers(self) -> list[SlotBuffer]:
        return [buffer for layer in self.layers for buffer in layer.buffers]
