"""Frames: a decoded video as models want it, and what is told of it in answers."""

import numpy as np

from src.inference.types import JsonObject


def filled_up(video: JsonObject, count: int) -> tuple[JsonObject, list[str]]:
    """Returns a video of at least `count` frames, the last one repeated where there are fewer, and a warning of it."""
    given = len(video["frames"])
    if given >= count:
        return video, []
    more = count - given
    filled = {
        **video,
        "frames": np.concatenate([video["frames"], np.repeat(video["frames"][-1:], more, axis=0)]),
        "indices": [*video["indices"], *[video["indices"][-1]] * more],
        "timestamps": [*video["timestamps"], *[video["timestamps"][-1]] * more],
    }
    return filled, [f"the model takes {count} frames and the video gave {given}: the last one was repeated"]


def described(video: JsonObject) -> JsonObject:
    """Returns the `count` of a video's frames, their `indices` among all of them and `timestamps` in seconds."""
    return {
        "count": len(video["frames"]),
        "indices": [int(index) for index in video["indices"]],
        "timestamps": [float(seconds) for seconds in video["timestamps"]],
    }
