"""The handler of speech recognition."""

from typing import Any

import numpy as np
import pytest

from src.core.errors import InvalidInputError
from src.inference.models.asr import AsrHandler
from src.inference.models.audio_classification import AudioClassificationHandler
from src.inference.models.base import BaseModelHandler

HANDLERS = (AsrHandler, AudioClassificationHandler)
SOUND = {"samples": np.zeros(8, np.float32), "rate": 16000, "seconds": 0.0005}


@pytest.mark.parametrize("handler", HANDLERS)
def test_it_asks_for_the_models_rate(handler: type[BaseModelHandler]) -> None:
    assert handler.media_wishes("audio", {}, {"sampling_rate": 24000}) == {"rate": 24000}
    assert handler.media_wishes("audio", {}, {}) == {"rate": None}


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("audio", ["speech.wav", b"RIFF", SOUND])
def test_what_nobody_has_decoded_yet_passes(handler: type[BaseModelHandler], audio: Any) -> None:
    handler().validate_input({"audio": audio}, handler.required_fields)


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("data", [{}, {"audio": None}, {"inputs": "speech.wav"}])
def test_a_missing_recording_is_named(handler: type[BaseModelHandler], data: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="missing field 'audio'"):
        handler().preprocess(data, {})


@pytest.mark.parametrize("handler", HANDLERS)
def test_a_recording_of_no_length_is_refused(handler: type[BaseModelHandler]) -> None:
    with pytest.raises(InvalidInputError, match=r"0\.0 s long"):
        handler().preprocess({"audio": {**SOUND, "samples": np.zeros(0, np.float32)}}, {})


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_decoded_recording_goes_to_the_model(handler: type[BaseModelHandler]) -> None:
    prepared = handler().preprocess({"audio": SOUND}, {"top_k": 3})
    assert prepared["inputs"] is SOUND
    assert prepared["options"] == {"top_k": 3}


def test_language_and_chunks_stand_where_they_are_known() -> None:
    raw: dict[str, Any] = {"response": "yes", "language": None, "metadata": {"model": "m"}}
    assert AsrHandler().postprocess(raw, {}) == {"transcription": "yes", "metadata": {"model": "m"}}
    chunks = [{"text": "yes", "timestamp": [0.0, 0.4]}]
    told = AsrHandler().postprocess({**raw, "language": "en", "chunks": chunks}, {})
    assert (told["language"], told["chunks"]) == ("en", chunks)
