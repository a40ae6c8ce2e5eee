"""The baseline: FastAPI and uvicorn, a typed body and an annotated answer, and the same no-op model."""

import sys
import time
import uuid
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.servers.noop import NoopEngine, NoopHandler


class Body(BaseModel):
    """What our own door takes."""

    task: str
    engine: str
    model_name: str
    data: dict[str, Any]
    options: dict[str, Any] | None = None


class Answer(BaseModel):
    """What our own door answers, without provenance."""

    success: bool
    result: dict[str, Any]
    task: str
    engine: str
    model_name: str
    processing_time: float
    timestamp: float
    request_id: str


app = FastAPI()
handler, engine = NoopHandler(), NoopEngine()
model = engine.load_model("noop")


@app.post("/inference/infer")
async def infer(body: Body) -> Answer:
    started = time.perf_counter()
    prepared = handler.preprocess(body.data, body.options or {})
    result = handler.postprocess(engine.infer(model, prepared["inputs"], prepared["options"]), {})
    return Answer(
        success=True,
        result=result,
        task=body.task,
        engine=body.engine,
        model_name=body.model_name,
        processing_time=time.perf_counter() - started,
        timestamp=time.time(),
        request_id=uuid.uuid4().hex,
    )


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="error",
    )
