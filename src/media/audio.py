"""Audio to one channel of float32. Runs inside decoder processes, on strangers' bytes."""

from typing import TYPE_CHECKING

import av
import numpy as np
import soxr

from src.media.containers import check_length, cut_off, frames_of, header_seconds, open_container, track
from src.media.content import Pieces
from src.media.job import Answer, Job
from src.media.wishes import AudioWishes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

_FULL_SCALE = {"u1": 128.0, "i2": 2.0**15, "i4": 2.0**31, "i8": 2.0**63}


def decode(job: Job) -> Answer:
    """Returns the first sound track, mixed to one channel, at the rate asked for; see `DecodedAudio`."""
    assert isinstance(job.wishes, AudioWishes)
    with open_container(job) as container:
        stream = track(job, container, "audio")
        promised = header_seconds(job, container, stream)
        check_length(job, promised, job.settings.max_audio_seconds, "max_audio_seconds")
        gathered = _Track(job, job.wishes.rate)
        for frame in frames_of(job, container, stream):
            gathered.add(frame)
    return gathered.finish(promised)


class _Track:
    """Gathers frames into samples, within the bounds of the settings."""

    def __init__(self, job: Job, rate: int | None) -> None:
        self._job = job
        self._wanted = rate
        self._pieces: list[Samples] = []
        self._resampler: soxr.ResampleStream | None = None
        self._rate = 0
        self._seconds = 0.0
        self._first: tuple[int, int] | None = None  # rate and channels, as the answer tells them

    def add(self, frame: "av.AudioFrame") -> None:
        """Takes one frame."""
        samples = mixed(frame)
        if not np.isfinite(samples).all():
            raise self._job.invalid("holds samples that are not numbers (NaN or infinite)")
        self._seconds += len(samples) / frame.sample_rate
        check_length(self._job, self._seconds, self._job.settings.max_audio_seconds, "max_audio_seconds")
        self._first = self._first or (frame.sample_rate, len(frame.layout.channels))
        if frame.sample_rate != self._rate:
            self._change(frame.sample_rate)
        self._keep(samples, last=False)

    def finish(self, promised: float | None) -> Answer:
        """Returns the whole."""
        self._keep(np.zeros(0, np.float32), last=True)
        length = sum(map(len, self._pieces))
        if self._first is None or length == 0:
            raise self._job.invalid("holds no sound: not one sample")
        if cut_off(promised, self._seconds):
            raise self._job.invalid(
                f"is cut off: its header tells of {promised:.1f} s, and {self._seconds:.1f} s are there"
            )
        rate, channels = self._first
        facts = {
            "rate": self._wanted or rate,
            "seconds": self._seconds,
            "original_rate": rate,
            "channels": channels,
        }
        return [Pieces(self._pieces, (length,))], facts

    def _change(self, rate: int) -> None:
        """Goes on at another rate: a stream may change it midway (two recordings one after the other)."""
        self._keep(np.zeros(0, np.float32), last=True)
        self._rate = rate
        wanted = self._wanted or (self._first or (rate,))[0]
        self._resampler = soxr.ResampleStream(rate, wanted, 1, dtype="float32") if wanted != rate else None

    def _keep(self, samples: "Samples", *, last: bool) -> None:
        if self._resampler is not None:
            samples = self._resampler.resample_chunk(samples, last=last)
        if len(samples):
            self._pieces.append(samples)


def mixed(frame: "av.AudioFrame") -> "Samples":
    """Returns a frame's samples as the mean of its channels, between -1 and 1."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, len(frame.layout.channels)).T
    mean = values.mean(axis=0, dtype=np.float64)
    scale = _FULL_SCALE.get(values.dtype.str[1:], 1.0)
    samples: Samples = ((mean - (scale if values.dtype.kind == "u" else 0.0)) / scale).astype(np.float32)
    return samples
