"""The handler of video analysis: what it refuses, what it asks of the decoder, what it answers."""

from typing import Any

import pytest

from src.core.errors import InvalidInputError
from src.inference.models.video_analysis import VideoAnalysisHandler

handler = VideoAnalysisHandler()
REQUIRED = VideoAnalysisHandler.required_fields
FRAMES = {"count": 1, "indices": [0], "timestamps": [0.0]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"prompt": "What?"}, "missing field 'video' in data"),
        ({"video": "a.mp4", "prompt": 5}, "field 'prompt' must be a text, not int"),
    ],
)
def test_input_that_cannot_be_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        handler.validate_input(data, REQUIRED)


def test_a_prompt_is_the_models_affair() -> None:
    prepared = handler.preprocess({"video": {"frames": []}}, {})
    assert prepared["inputs"] == {"video": {"frames": []}, "prompt": None}


@pytest.mark.parametrize(
    ("options", "facts", "wishes"),
    [
        ({}, {}, {}),
        ({}, {"num_frames": 8}, {"num_frames": 8}),
        ({}, {"fps": 2.0, "num_frames": 32}, {"fps": 2.0, "num_frames": 32}),
        ({"num_frames": 4}, {"fps": 2.0, "num_frames": 32}, {"num_frames": 4}),
        ({"fps": 1.0}, {"fps": 2.0, "num_frames": 32}, {"fps": 1.0}),
        ({"num_frames": 4, "fps": 1.0}, {}, {"num_frames": 4, "fps": 1.0}),
        ({"num_frames": 4}, {"fixed_frames": 16}, {"num_frames": 16}),
        ({"fps": 3.0}, {"fixed_frames": 16}, {"num_frames": 16, "fps": 3.0}),
    ],
)
def test_asks_for_the_frames_of_the_caller_or_of_the_model(
    options: dict[str, Any], facts: dict[str, Any], wishes: dict[str, Any]
) -> None:
    assert handler.media_wishes("video", options, facts) == wishes


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        ({"response": "it rolls"}, {"analysis": "it rolls"}),
        ({"response": ["it rolls", "it falls"]}, {"analysis": "it rolls", "analyses": ["it rolls", "it falls"]}),
        (
            {"response": "rolls", "labels": ["rolls", "falls"], "scores": [0.9, 0.1]},
            {"analysis": "rolls", "labels": ["rolls", "falls"], "scores": [0.9, 0.1]},
        ),
    ],
)
def test_answers_with_texts_or_labels_and_the_frames(raw: dict[str, Any], answer: dict[str, Any]) -> None:
    more = {"frames": FRAMES, "metadata": {"model": "m"}}
    assert handler.postprocess({**raw, **more, "warnings": []}, {}) == {**answer, **more}
