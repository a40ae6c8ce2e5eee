"""StepScheduler: runs the requests of one causal language model together; they join and leave between its steps.

A step reads prompts and gives every running request its next token, both in one pass through the model where its
attention allows that, else in turns. No more of the prompts is read in a step than fills the processor: those who run
wait little, and requests that came together part, so that those who follow them find the next step theirs.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from src.core.errors import EngineError, PlatformError
from src.core.host_memory import host_memory
from src.inference.engines.transformers.attempts import attempted
from src.inference.engines.transformers.generation import Generator, Prompt, context_tokens
from src.inference.engines.transformers.slot_model import SlotModel
from src.inference.engines.transformers.step_choice import Chooser
from src.inference.engines.transformers.step_row import Row
from src.inference.engines.transformers.step_support import StepSupport
from src.inference.types import JsonObject
from src.inference.workers.failures import engine_failure, is_out_of_memory

logger = logging.getLogger(__name__)

_MOST_ROWS = 256
_PROMPT_TOKENS, _PACKED_TOKENS = {"cpu": 128}, {"cpu": 32}
"""Tokens of prompts that are read in one step; those up to which several prompts are faster together than singly."""
_ACCELERATOR_TOKENS = 2048
"""Both for other devices."""
_SMALL_BYTES = 256 * 2**20
"""Memory that the cache takes without a look at what is free, and keeps while nothing runs."""


class StepScheduler:
    """Runs requests step by step; `max_rows`: as many at once at most. Lives in one thread.

    `prompt`: a request's inputs → the encoded prompt; `finish`: raw answer and options → the answer with its warnings.
    """

    def __init__(
        self,
        generator: Generator,
        prompt: Callable[[Any], Prompt],
        finish: Callable[[JsonObject, JsonObject], JsonObject],
        *,
        max_rows: int = _MOST_ROWS,
    ) -> None:
        device = generator.model.device
        self._generator, self._prompt, self._finish = generator, prompt, finish
        self._device = device
        self._support = StepSupport(generator)
        self._chooser = Chooser(device)
        self._max_rows = self._allowed_rows = max_rows
        context = context_tokens(generator.model.config) or _ACCELERATOR_TOKENS
        self._part_tokens = _PROMPT_TOKENS.get(device.type, _ACCELERATOR_TOKENS)
        # Architectures with learned positions take no text that is longer than their context, packed or not.
        self._packed_tokens = min(_PACKED_TOKENS.get(device.type, _ACCELERATOR_TOKENS), context)
        self._slots: SlotModel | None = None
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []
        """Those in the slots, one slot each; the last may be a prompt of which a part has been read."""
        self._has_read = False
        self._done: list[tuple[int, Any | PlatformError]] = []

    def __len__(self) -> int:
        """Returns how many requests are inside."""
        return len(self._rows) + len(self._waiting)

    def takes(self, inputs: Any, options: JsonObject) -> bool:
        """Whether a request can be run with those inside, or by itself where nobody is."""
        if options.get("num_beams", 1) != 1 or options.get("num_return_sequences", 1) != 1:
            return False
        return self._support.layers > 0 and (not len(self) or self._support.together)

    def add(self, key: int, inputs: Any, options: JsonObject, emit: Callable[[str], None] | None) -> None:
        """Takes a request in; raises `InvalidInputError` where `generate` would refuse it."""
        if not self._support.layers:
            raise EngineError(f"model '{self._generator.name}' cannot be run step by step")
        row = Row(key, options, self._generator.plan(self._prompt(inputs), options), self._generator)
        row.begin(self._chooser)
        if emit is not None:
            row.stream(emit)
        self._waiting.append(row)

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def step(self) -> list[tuple[int, Any | PlatformError]]:
        """Reads prompts and gives each running request its next token; returns the finished: key and answer or error.

        Out of memory, it goes on with fewer requests at once; those beyond wait, and are read again.
        """
        running = [row for row in self._rows if row.is_running]
        prompts = self._read_next(running)
        self._has_read = bool(prompts)
        if prompts or running:
            self._try(running if self._is_mixed(running, prompts) or not prompts else [], prompts)
        if not len(self):
            self._rest()
        done, self._done = self._done, []
        return done

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def cancel(self, key: int) -> None:
        """Drops a request, if it is inside; its slot is free at once."""
        for row in (*self._rows, *self._waiting):
            if row.key == key:
                row.gone = True
                if row in self._rows:
                    self._leave(row)
                else:
                    self._waiting.remove(row)
                return

    # ------------------------------------------------------------------ who comes in

    def _read_next(self, running: list[Row]) -> list[Row]:
        """Returns the requests whose prompts are read now: one of which a part has been read, or those that wait."""
        begun = self._rows[len(running) :]
        waiting = begun or list(self._waiting)[:1]
        if not waiting or (running and self._has_read and not self._is_mixed(running, waiting)):
            return []
        return begun or self._let_in()

    def _is_mixed(self, running: list[Row], prompts: list[Row]) -> bool:
        """Whether prompts are read in the pass in which the others go on."""
        return bool(running and prompts) and not prompts[0].alone and self._support.mixes

    def _let_in(self) -> list[Row]:
        rows: list[Row] = []
        tokens = 0
        while self._waiting and self._has_room(self._waiting[0]):
            row = self._waiting[0]
            tokens += len(row.unread)
            if rows and (tokens > self._packed_tokens or row.alone or rows[0].alone):
                break
            rows.append(self._waiting.popleft())
            self._rows.append(row)
        return rows

    def _has_room(self, row: Row) -> bool:
        if not self._rows:
            return True
        if len(self._rows) >= self._allowed_rows or not self._support.together or self._slots is None:
            return False
        slots = 1 << len(self._rows).bit_length()
        wanted = slots * max(each.most for each in (*self._rows, row)) * self._slots.cache.token_bytes
        return bool(wanted <= _SMALL_BYTES or wanted <= self._slots.cache.total_bytes + self._free_bytes() // 2)

    def _free_bytes(self) -> int:
        if self._device.type == "cuda":
            unused = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
            return int(torch.cuda.mem_get_info(self._device)[0] + unused)
        return host_memory().free

    # ------------------------------------------------------------------ a step

    def _try(self, running: list[Row], prompts: list[Row]) -> None:
        try:
            self._advance(running, prompts)
        except Exception as exc:
            # Whatever a library raises here, the requests in this step meet it and the scheduler goes on.
            for row in running:
                row.read = len(row.tokens) - 1
            if is_out_of_memory(exc) and len(self._rows) > 1:
                self._shrink()
            elif prompts and len(running) + len(prompts) > 1:
                logger.warning("prompts failed beside others: each is read by itself", exc_info=True)
                self._put_back(prompts)
            else:
                for row in running or prompts:
                    self._end(row, engine_failure(exc, "transformers"))

    def _advance(self, running: list[Row], prompts: list[Row]) -> None:
        if self._slots is None:
            self._slots = SlotModel(self._generator.model, self._support.layers)
        tokens, positions = [row.tokens[-1] for row in running], [row.read for row in running]
        texts = [row.unread[: self._part_tokens] for row in prompts]
        if not prompts:
            logits = self._slots.go_on(tokens, positions)
        elif not running:
            logits = self._slots.read(self._rows.index(prompts[0]), texts, prompts[0].read)
        else:
            logits = self._slots.mix(tokens, positions, texts, prompts[0].read)
        for row, text in zip((*running, *prompts), (*([token] for token in tokens), *texts), strict=True):
            row.read += len(text)
            row.is_running = not row.unread
        self._take([row for row in (*running, *prompts) if row.is_running], logits)

    def _take(self, rows: list[Row], logits: torch.Tensor) -> None:
        """Gives each request the token that its logits (requests x vocabulary) and its options lead to."""
        logits = logits[: len(rows)].float()  # a part of a prompt is the last, and has no say yet
        tokens = self._chooser.choose(logits, [row.choice for row in rows], [row.text() for row in rows])
        for row, token, own in zip(rows, tokens, logits, strict=False):
            if not row.gone:
                answer = attempted(self._answer, row, token, own)
                if answer is not None:
                    self._end(row, engine_failure(answer, "transformers") if isinstance(answer, Exception) else answer)

    def _answer(self, row: Row, token: int | Exception, logits: torch.Tensor) -> JsonObject | None:
        """Returns the answer that a token completes, if it does."""
        if isinstance(token, Exception):
            raise token
        return self._finish(row.finished(), row.options) if row.take(token, logits) else None

    # ------------------------------------------------------------------ who goes

    def _end(self, row: Row, answer: Any | PlatformError) -> None:
        if not row.gone:  # it may have been cancelled by whoever got its last piece
            self._done.append((row.key, answer))
            self._leave(row)

    def _leave(self, row: Row) -> None:
        """Frees a slot: the last of those that run goes there, and a prompt that is being read moves up behind it."""
        hole, running = self._rows.index(row), sum(each.is_running for each in self._rows)
        for source in (running - 1, len(self._rows) - 1):
            if source > hole:
                self._rows[hole] = self._rows[source]
                if self._slots is not None:
                    self._slots.cache.move(source, hole, self._rows[hole].read)
                hole = source
        del self._rows[hole]

    def _put_back(self, rows: list[Row]) -> None:
        """Has prompts that came last wait again, to be read one by one."""
        del self._rows[-len(rows) :]
        for row in reversed(rows):
            row.again()
            row.alone = True
            self._waiting.appendleft(row)

    def _shrink(self) -> None:
        """Lets the cache go and half of the requests wait until the others have finished."""
        self._allowed_rows = max(1, len(self._rows) // 2)
        logger.warning("out of memory with %d requests: at most %d at once", len(self._rows), self._allowed_rows)
        self._put_back(list(self._rows))
        self._drop()

    def _rest(self) -> None:
        self._allowed_rows = self._max_rows
        if self._slots is not None and self._slots.cache.total_bytes > _SMALL_BYTES:
            self._drop()

    def _drop(self) -> None:
        self._slots = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
