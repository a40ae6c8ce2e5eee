"""A model of MLServer's: nothing at all, or the image classifier; adaptive batching hands over several texts."""

from typing import Any

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.work import work


class Runtime(MLModel):
    """Takes texts and answers texts."""

    async def load(self) -> bool:
        self._work = work()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        answers = [_text(answer) for answer in self._work(texts)]
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("outputs", answers)])


def _text(answer: Any) -> str:
    return answer if isinstance(answer, str) else f"{answer['label']} {answer['score']}"
