"""`python -m benchmarks.peers.litserve.server PORT`: LitServe with its fast queue, and batches where that helps."""

import os
import sys
from typing import Any

import litserve

from benchmarks.peers.work import MAX_BATCH, TASK, work


class Api(litserve.LitAPI):
    """Takes `{"inputs": text}` and answers `{"output": …}`."""

    def setup(self, device: str) -> None:
        self._work = work()

    def decode_request(self, request: dict[str, Any]) -> str:
        return str(request["inputs"])

    def predict(self, x: Any) -> Any:
        return self._work(x) if isinstance(x, list) else self._work([x])[0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"output": output}


if __name__ == "__main__":
    batch = 1 if os.environ[TASK] == "noop" else MAX_BATCH
    api = Api(max_batch_size=batch, batch_timeout=0.005 if batch > 1 else 0.0)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="error", generate_client_file=False)
