"""`python -m benchmarks.peers.ray_serve.server PORT`: Ray Serve, with its batching where that helps."""

import os
import signal
import sys
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from starlette.requests import Request

from benchmarks.peers.work import MAX_BATCH, TASK, work

_ACTOR = {"num_cpus": 1}


@serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options=_ACTOR)
class Plain:
    """Takes `{"inputs": text}` and answers `{"output": text}`."""

    async def __call__(self, request: Request) -> Any:
        return {"output": (await request.json())["inputs"]}


@serve.deployment(num_replicas=1, max_ongoing_requests=100, ray_actor_options=_ACTOR)
class Batched:
    """Takes `{"inputs": text}` and answers `{"output": …}`."""

    def __init__(self) -> None:
        self._work = work()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.005)
    async def _infer(self, inputs: list[str]) -> list[Any]:
        return self._work(inputs)

    async def __call__(self, request: Request) -> Any:
        return {"output": await self._infer((await request.json())["inputs"])}


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=int(sys.argv[1])))
    serve.run((Plain if os.environ[TASK] == "noop" else Batched).bind())
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()
