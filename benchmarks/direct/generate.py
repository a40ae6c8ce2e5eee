"""`python -m benchmarks.direct.generate MODELS`: the limit of W3, `generate` in a tight loop."""

import itertools
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.generation.streamers import BaseStreamer

from benchmarks.direct.pipe import serve
from benchmarks.models import NEW_TOKENS, inputs


class Limit:
    """Answers questions about one model. Texts are tokenized and decoded in the loop, as a server has to."""

    def __init__(self, folder: Path) -> None:
        path = folder / "llama"
        self._prompts = inputs(folder, "prompts")
        self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype="auto", local_files_only=True).eval()

    def loop(self, batch: int, seconds: float) -> dict[str, Any]:
        """Generates for so many seconds, and once before that is not counted; real tokens are counted."""
        prompts = itertools.cycle(self._prompts["fixed"])
        self._generate(list(itertools.islice(prompts, batch)), NEW_TOKENS)
        tokens, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            rows = self._generate(list(itertools.islice(prompts, batch)), NEW_TOKENS)
            tokens += sum(len(row) for row in rows)
        return {"tokens_per_second": tokens / passed, "tokens": tokens, "batch": batch}

    def mixed(self, batch: int) -> dict[str, Any]:
        """Generates the mixed load at once, sorted by the length of the answers, so many at a time."""
        asked = sorted(self._prompts["mixed"], key=lambda prompt: prompt["new_tokens"])
        tokens, started = 0, time.perf_counter()
        for place in range(0, len(asked), batch):
            group = asked[place : place + batch]
            rows = self._generate([prompt["text"] for prompt in group], group[-1]["new_tokens"])
            tokens += sum(len(row[: prompt["new_tokens"]]) for row, prompt in zip(rows, group, strict=True))
        passed = time.perf_counter() - started
        return {"tokens_per_second": tokens / passed, "tokens": tokens, "seconds": passed, "batch": batch}

    def first(self, batch: int) -> dict[str, Any]:
        """Returns how long the first token of so many prompts together takes."""
        passed = []
        for _ in range(10):
            clock = _FirstToken()
            started = time.perf_counter()
            if batch == 1:
                self._generate(self._prompts["fixed"][:1], 4, streamer=clock)
            else:
                self._generate(self._prompts["fixed"][:batch], 1)
            passed.append((clock.at or time.perf_counter()) - started)
        return {"first_piece_p50_ms": sorted(passed)[5] * 1000, "batch": batch}

    def expected(self, batch: int) -> dict[str, Any]:
        """Returns the texts of all answers."""
        fixed = [{"text": prompt, "new_tokens": NEW_TOKENS} for prompt in self._prompts["fixed"]]
        return {"fixed": self._texts(fixed, batch), "mixed": self._texts(self._prompts["mixed"], batch)}

    def _texts(self, prompts: Sequence[dict[str, Any]], batch: int) -> list[str]:
        order = sorted(range(len(prompts)), key=lambda place: int(prompts[place]["new_tokens"]))
        texts = [""] * len(prompts)
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            longest = prompts[places[-1]]["new_tokens"]
            rows = self._generate([prompts[place]["text"] for place in places], longest)
            for place, row in zip(places, rows, strict=True):
                texts[place] = self._tokenizer.decode(row[: prompts[place]["new_tokens"]], skip_special_tokens=True)
        return texts

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _generate(self, prompts: Sequence[str], new_tokens: int, **more: Any) -> list[list[int]]:
        encoded = self._tokenizer(list(prompts), return_tensors="pt", padding=len(prompts) > 1)
        encoded.pop("token_type_ids", None)
        output = self._model.generate(**encoded, max_new_tokens=new_tokens, do_sample=False, **more)
        rows: list[list[int]] = output[:, encoded["input_ids"].shape[1] :].tolist()
        self._tokenizer.batch_decode(rows, skip_special_tokens=True)
        return rows


class _FirstToken(BaseStreamer):  # type: ignore[misc]
    """Notes when the first token comes; the first thing that a streamer is given is the prompt."""

    def __init__(self) -> None:
        self._seen_prompt = False
        self.at: float | None = None

    def put(self, value: Any) -> None:
        if self._seen_prompt and self.at is None:
            self.at = time.perf_counter()
        self._seen_prompt = True

    def end(self) -> None:
        return


if __name__ == "__main__":
    limit = Limit(Path(sys.argv[1]))
    serve({"loop": limit.loop, "mixed": limit.mixed, "first": limit.first, "expected": limit.expected})
