"""What audio and video share: opening a container without leaving it, its header's word, packets and damage."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
import av.logging
from av.stream import Disposition

from src.media.job import Job

av.logging.set_level(None)  # what libraries say about a stranger's file goes nowhere

FORMATS = {
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/aac": "aac",
    "audio/mp4": "mov",
    "video/mp4": "mov",
    "video/webm": "matroska",
    "video/avi": "avi",
}
# These have no header with a length: what the library tells for them is a guess by the first packets.
_GUESSED = ("audio/mpeg", "audio/aac")
_DAMAGED_SHARE = 0.05
_CUT_OFF_SHARE, _CUT_OFF_SECONDS = 0.9, 0.5


@contextmanager
def open_container(job: Job) -> Iterator["av.container.InputContainer"]:
    """Opens a file as the type it was found to be and nothing else, so that no playlist can name other files."""
    options = {"protocol_whitelist": "none", "max_pixels": str(job.settings.max_pixels)}
    job.source.seek(0)  # a video is opened twice
    try:
        container = av.open(job.source, "r", format=FORMATS[job.type], options=options)
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError) as exc:
        raise job.invalid(f"begins like that, but cannot be read: {_words(exc)}") from exc
    with container:
        yield container


def track(job: Job, container: "av.container.InputContainer", kind: str) -> Any:
    """Returns the first `audio` or `video` track, ready to be decoded within the bounds; raises where there is none."""
    found: Any = getattr(container.streams, kind)
    # The cover of a record is a picture, and no picture track.
    streams = [stream for stream in found if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise job.invalid(f"has no {'sound' if kind == 'audio' else 'picture'} track")
    stream = streams[0]
    if stream.codec_context is None:
        raise job.invalid("is coded in a way that is not known here")
    # One thread: the pool's processes are the parallelism, and their memory is counted.
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(job.settings.max_pixels)}
    return stream


def header_seconds(job: Job, container: "av.container.InputContainer", stream: Any) -> float | None:
    """Returns the length that the header tells, in seconds; None where it tells none that can be relied on."""
    lengths: list[float] = []
    if job.type in _GUESSED:
        return None
    if job.type == "audio/wav":
        return _wav_seconds(job.source)
    if container.duration is not None:
        lengths.append(container.duration / av.time_base)
    if stream.duration is not None and stream.time_base is not None:
        lengths.append(float(stream.duration * stream.time_base))
    return max(lengths, default=None)


def _wav_seconds(source: BinaryIO) -> float | None:
    """Returns the length that a WAV's header tells: the library believes the size of the file instead."""
    here = source.tell()  # the library reads on from there
    try:
        return _told_by_wav(source)
    finally:
        source.seek(here)


def _told_by_wav(source: BinaryIO) -> float | None:
    place, rate = 12, 0
    while True:
        source.seek(place)
        head = source.read(24)
        if len(head) < 8:
            return None
        name, size = head[:4], int.from_bytes(head[4:8], "little")
        if name == b"fmt ":
            rate = int.from_bytes(head[16:20], "little")  # bytes per second
        if name == b"data":
            # Written to a pipe, the size is not known yet.
            return size / rate if rate and size not in (0, 0xFFFFFFFF) else None
        place += 8 + size + size % 2


def check_length(job: Job, seconds: float | None, bound: float, setting: str) -> None:
    """Raises `PayloadTooLargeError` past the bound."""
    if seconds is not None and seconds > bound:
        raise job.too_large(f"is {seconds:,.0f} s long", setting, bound)


def cut_off(promised: float | None, seconds: float) -> bool:
    """Whether clearly less came than the header tells of."""
    return promised is not None and seconds < promised * _CUT_OFF_SHARE - _CUT_OFF_SECONDS


def frames_of(job: Job, container: "av.container.InputContainer", stream: Any) -> Iterator[Any]:
    """Yields a stream's frames; a few damaged packets are passed over, as players do, many are an error."""
    damage = Damage(job)
    for packet in packets_of(job, container, stream):
        yield from damage.watch(packet.decode)
    damage.check()


def packets_of(job: Job, container: "av.container.InputContainer", stream: Any) -> Iterator[Any]:
    """Yields a stream's packets and the empty one at the end; a file that breaks off ends there."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, MemoryError) as exc:
            if isinstance(exc, MemoryError):
                raise
            return
        except av.FFmpegError as exc:
            raise job.invalid(f"is damaged: {_words(exc)}") from exc
        yield packet


class Damage:
    """Counts packets that could not be decoded."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._packets = 0
        self._bad = 0
        self._last = ""

    def watch(self, decode: Any) -> list[Any]:
        """Returns what a packet decodes to; nothing where it is damaged."""
        self._packets += 1
        try:
            frames: list[Any] = decode()
        except MemoryError:
            raise
        except av.FFmpegError as exc:
            self._bad += 1
            self._last = _words(exc)
            return []
        return frames

    def check(self) -> None:
        """Raises `InvalidInputError` where too many were damaged."""
        if self._bad > 1 and self._bad > self._packets * _DAMAGED_SHARE:
            raise self._job.invalid(
                f"is damaged: {self._bad} of {self._packets} packets cannot be decoded ({self._last})"
            )


def _words(exc: Exception) -> str:
    return getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
