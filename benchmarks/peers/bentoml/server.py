"""`bentoml serve benchmarks.peers.bentoml.server:Service`: BentoML, with adaptive batching where that helps."""

import os
from typing import Any

import bentoml

from benchmarks.peers.work import MAX_BATCH, TASK, work

if os.environ[TASK] == "noop":

    @bentoml.service(workers=1)
    class Service:
        """Takes `{"inputs": text}` and answers `{"output": text}`."""

        @bentoml.api(route="/infer")
        async def infer(self, inputs: str) -> dict[str, Any]:
            return {"output": inputs}

else:

    @bentoml.service(workers=1, traffic={"timeout": 300})
    class Service:  # type: ignore[no-redef]
        """Takes `{"inputs": [text]}` and answers a list."""

        def __init__(self) -> None:
            self._work = work()

        @bentoml.api(route="/infer", batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000)
        def infer(self, inputs: list[str]) -> list[dict[str, Any]]:
            return self._work(inputs)
