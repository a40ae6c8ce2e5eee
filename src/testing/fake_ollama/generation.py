"""Generation: one token after another on a runner, until a bound, a stop word, or the client leaves."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, aclosing

from src.testing.fake_ollama.asks import Account, Ask, Outcome, Piece
from src.testing.fake_ollama.pace import Counts, Pace
from src.testing.fake_ollama.scheduler import Runner, Scheduler
from src.testing.fake_ollama.text import StopCutter, answer_tokens, vector
from src.testing.fake_ollama.wire import JsonObject

THOUGHT_TOKENS = 4
_BLOCK = bytes(65_536)


class Generator:
    """Produces text and vectors on the scheduler's runners."""

    def __init__(self, scheduler: Scheduler, pace: Pace, counts: Counts) -> None:
        self.scheduler = scheduler
        self._pace = pace
        self._counts = counts
        self._processors = ThreadPoolExecutor(thread_name_prefix="fake-ollama-cpu")

    def close(self) -> None:
        """Ends the threads that burn CPU time."""
        self._processors.shutdown()

    async def answer(self, ask: Ask) -> AsyncGenerator[Piece | Outcome]:
        """Yields the pieces of an answer and, last, its outcome."""
        account = Account()
        async with self._runner(ask) as runner, aclosing(self._pieces(ask, runner, account)) as pieces:
            account.load_done()
            self._counts.active += 1
            try:
                async for piece in pieces:
                    yield piece
                self._counts.finished += 1
            except (asyncio.CancelledError, GeneratorExit):
                self._counts.stopped += 1
                raise
            finally:
                self._counts.active -= 1
        # The slot is free before the client can know that its answer is complete.
        yield account.outcome(ask)

    async def load(self, ask: Ask) -> None:
        """Loads the model, and does nothing else."""
        async with self._runner(ask):
            pass

    async def embed(self, ask: Ask, dimensions: int | None = None) -> tuple[list[list[float]], JsonObject]:
        """Returns a vector for each turn, and the counts."""
        started = time.perf_counter_ns()
        length = min(dimensions or ask.stored.model.embedding_length, ask.stored.model.embedding_length)
        vectors = []
        async with self._runner(ask) as runner:
            loaded = time.perf_counter_ns()
            for turn in ask.turns:
                await self._token(runner)
                vectors.append(vector(turn.content, length))
        tokens = sum(min(1 + turn.tokens, ask.context_length) for turn in ask.turns)
        durations = {"total_duration": time.perf_counter_ns() - started, "load_duration": loaded - started}
        return vectors, {**durations, "prompt_eval_count": tokens}

    def _runner(self, ask: Ask) -> AbstractAsyncContextManager[Runner]:
        return self.scheduler.runner(ask.stored, ask.options.runner, ask.context_length, ask.keep_alive)

    async def _pieces(self, ask: Ask, runner: Runner, account: Account) -> AsyncGenerator[Piece]:
        thoughts = answer_tokens(f"{ask.key} thought", THOUGHT_TOKENS, None) if ask.think else []
        tokens = thoughts + answer_tokens(ask.key, self._pace.answer_tokens, ask.form)
        cutter = StopCutter(ask.options.stop)
        for token in tokens[: ask.options.num_predict]:
            await self._token(runner)
            account.token(token)
            if len(account.said) <= len(thoughts):
                yield Piece("", thinking=token)
            elif text := cutter.push(token):
                yield Piece(text)
            if cutter.stopped:
                break
        if rest := cutter.rest():
            yield Piece(rest)
        account.complete = cutter.stopped or len(account.said) == len(tokens)

    async def _token(self, runner: Runner) -> None:
        if self._pace.token_cpu > 0:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._processors, _burn, self._pace.token_cpu)
        await runner.pause(self._pace.token_delay)


def _burn(seconds: float) -> None:
    """Uses CPU time; hashing large blocks releases the interpreter, as a runner of its own would."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        hashlib.sha256(_BLOCK)
