"""Decoding without a pool: the decoders called here, on files that these tests made."""

import io
from typing import Any

from src.core.settings_sections import MediaSettings
from src.media import audio, document, image, video
from src.media.content import Pieces
from src.media.decoded import Decoded, DecodedAudio, DecodedDocument, DecodedImage, DecodedVideo, assemble
from src.media.detection import check_type
from src.media.job import Job
from src.media.wishes import wishes_for

_DECODERS = {"image": image.decode, "audio": audio.decode, "video": video.decode, "document": document.decode}


def decoded(kind: str, data: bytes, settings: MediaSettings | None = None, **wanted: Any) -> Decoded:
    """Returns what a decoder makes of a file."""
    bounds = settings or MediaSettings()
    wishes = wishes_for(kind, wanted, bounds)
    job = Job(io.BytesIO(data), kind, check_type(kind, data, kind), kind, wishes, bounds)
    arrays, facts = _DECODERS[kind](job)
    return assemble(kind, [_whole(array) for array in arrays], {"warnings": [], **facts, "type": job.type})


def _whole(array: Any) -> Any:
    import numpy as np

    return (
        np.concatenate([piece.reshape(-1) for piece in array.pieces]).reshape(array.shape)
        if isinstance(array, Pieces)
        else array
    )


def decoded_image(data: bytes, settings: MediaSettings | None = None) -> DecodedImage:
    """Returns a picture."""
    found = decoded("image", data, settings)
    assert isinstance(found, DecodedImage)
    return found


def decoded_audio(data: bytes, settings: MediaSettings | None = None, **wanted: Any) -> DecodedAudio:
    """Returns sound."""
    found = decoded("audio", data, settings, **wanted)
    assert isinstance(found, DecodedAudio)
    return found


def decoded_video(data: bytes, settings: MediaSettings | None = None, **wanted: Any) -> DecodedVideo:
    """Returns frames."""
    found = decoded("video", data, settings, **wanted)
    assert isinstance(found, DecodedVideo)
    return found


def decoded_document(data: bytes, settings: MediaSettings | None = None, **wanted: Any) -> DecodedDocument:
    """Returns pages."""
    found = decoded("document", data, settings, **wanted)
    assert isinstance(found, DecodedDocument)
    return found
