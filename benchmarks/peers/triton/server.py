"""`python -m benchmarks.peers.triton.server PORT GRPC METRICS`: Triton through PyTriton, with its dynamic batcher."""

import sys
from typing import Any

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.work import MAX_BATCH, work

_work = work()


@batch
def infer(inputs: Any) -> dict[str, Any]:
    """Takes (batch, 1) texts as bytes and answers (batch, 1) texts."""
    answers = _work([text.decode() for text in inputs[:, 0].tolist()])
    return {"outputs": np.array([[_text(answer).encode()] for answer in answers], dtype=object)}


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else f"{answer['label']} {answer['score']}"


if __name__ == "__main__":
    ports = [int(text) for text in sys.argv[1:4]]
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=ports[0],
        grpc_address="127.0.0.1",
        grpc_port=ports[1],
        metrics_port=ports[2],
        exit_timeout_secs=2,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="model",
            infer_func=infer,
            inputs=[Tensor(name="inputs", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="outputs", dtype=bytes, shape=(1,))],
            config=ModelConfig(max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=0)),
        )
        triton.serve()
