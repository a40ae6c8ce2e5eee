"""Admission: what is promised of each device's memory, so that a model is loaded only where it fits.

`Ledger` keeps the promises, `refusal` words the answer where one cannot be given, `PeakRecords` remember
what models really took. Nothing here loads, unloads or decides whom to evict: that is the cache's part.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import orjson

from src.core.errors import InsufficientMemoryError
from src.core.file_lock import file_locked
from src.core.gpu_manager import memory_of
from src.core.memory import format_bytes
from src.core.stores.disk import unique_name, write_durably
from src.inference.vram_estimator import MemoryEstimate

logger = logging.getLogger(__name__)

_FORMAT = 1
_LOCK_TIMEOUT = 5.0
_MAX_RECORDS = 1000
_MAX_FILE = 16 * 2**20
_MAX_BYTES = 2**60


class MemoryGauge(Protocol):
    """Whoever measures memory, as `GpuManager` does."""

    def free_bytes(self, device: str) -> int | None:
        """Returns the memory free on a device now; None where it cannot be measured."""
        ...


@dataclass(frozen=True, slots=True)
class Reservation:
    """Memory promised to one model on one device.

    `shown_bytes` of it are taken already as far as measured free memory shows; the rest is still to come.
    """

    key: Hashable
    device: str
    bytes: int
    shown_bytes: int = 0
    settled: bool = False

    @property
    def outstanding_bytes(self) -> int:
        """What measured free memory does not lack yet, though it is promised."""
        return max(self.bytes - self.shown_bytes, 0)


class Ledger:
    """The one ledger of memory promised, per device, to loads under way and to loaded models.

    What is free for another model is the smaller of two numbers: measured free memory without what is
    promised and does not show in it yet, and the device's budget without all that is promised. A loaded
    model whose memory shows in the measurement is so counted once. Safe to use from any thread; the gauge
    is asked under the lock, so that a model cannot slip between measurement and promise.
    """

    def __init__(self, gauge: MemoryGauge, budgets: Mapping[str, int] | None = None) -> None:
        self._gauge = gauge
        self._budgets = dict(budgets or {})
        self._lock = threading.Lock()
        self._booked: dict[Hashable, Reservation] = {}

    def reserve(self, key: Hashable, device: str, wanted: int) -> Reservation | None:
        """Promises `wanted` bytes to `key`, at once and for good; None where they are not free.

        Raises `ValueError` for a key that holds a promise already, and for a negative size.
        """
        if wanted < 0:
            raise ValueError(f"a reservation of {wanted} bytes")
        device = memory_of(device)
        with self._lock:
            if key in self._booked:
                raise ValueError(f"{key!r} has a reservation already")
            if self._shortfall(device, wanted) > 0:
                return None
            reservation = self._booked[key] = Reservation(key, device, wanted)
            return reservation

    def progress(self, key: Hashable, shown_bytes: int) -> None:
        """Notes how much of a load shows in measured free memory by now, so that it is not counted twice."""
        self._change(key, lambda held: replace(held, shown_bytes=max(shown_bytes, 0)))

    def settle(self, key: Hashable, measured_bytes: int | None, *, shown_bytes: int | None = None) -> None:
        """Replaces what was promised for a load by what the loaded model takes; None: the promise was right.

        `shown_bytes` of them lack in measured free memory; None: all. Pages of mapped files do not, nor does
        a KV cache that is yet to grow. May be called again whenever the model was measured anew. A key that
        was released meanwhile is passed over.
        """

        def settled(held: Reservation) -> Reservation:
            total = held.bytes if measured_bytes is None else max(measured_bytes, 0)
            shown = total if shown_bytes is None else min(max(shown_bytes, 0), total)
            return replace(held, bytes=total, shown_bytes=shown, settled=True)

        self._change(key, settled)

    def release(self, key: Hashable) -> None:
        """Forgets what was promised to `key`, if anything."""
        with self._lock:
            self._booked.pop(key, None)

    def shortfall(self, device: str, wanted: int) -> int:
        """Returns how many bytes have to become free on a device before `wanted` fit; 0: they do."""
        with self._lock:
            return self._shortfall(memory_of(device), wanted)

    def free(self, device: str) -> int | None:
        """Returns what another model could be promised; None where neither a measurement nor a budget tells."""
        with self._lock:
            room = self._room(memory_of(device))
        return None if room is None else max(room, 0)

    def booked(self, device: str) -> int:
        """Returns all that is promised on a device."""
        with self._lock:
            return self._sum(memory_of(device))

    def budget(self, device: str) -> int | None:
        """Returns the most that may be promised on a device; None: what it has."""
        return self._budgets.get(memory_of(device))

    def reservations(self) -> list[Reservation]:
        """Returns every promise."""
        with self._lock:
            return list(self._booked.values())

    def _shortfall(self, device: str, wanted: int) -> int:
        room = self._room(device)
        if room is None or wanted <= 0:
            return 0  # nobody can tell, so the load itself has to; nothing fits anywhere
        return max(wanted - room, 0)

    def _room(self, device: str) -> int | None:
        """Returns the memory that is nobody's; below zero where more is taken than there should be."""
        bounds = []
        measured = self._gauge.free_bytes(device)
        if measured is not None:
            held = (each.outstanding_bytes for each in self._booked.values() if each.device == device)
            bounds.append(measured - sum(held))
        if device in self._budgets:
            bounds.append(self._budgets[device] - self._sum(device))
        return min(bounds, default=None)

    def _sum(self, device: str) -> int:
        return sum(each.bytes for each in self._booked.values() if each.device == device)

    def _change(self, key: Hashable, change: Callable[[Reservation], Reservation]) -> None:
        with self._lock:
            held = self._booked.get(key)
            if held is not None:
                self._booked[key] = change(held)


def refusal(
    model_name: str, needed: int, free: int | None, device: str, budget: int | None, evictable: int
) -> InsufficientMemoryError:
    """Returns the error for a model that does not fit, with what would help.

    `evictable`: bytes that other loaded models hold, none of which may be evicted now.
    """
    there = "an unknown amount" if free is None else format_bytes(max(free, 0))
    helps = []
    if memory_of(device) != "cpu":
        helps.append('options {"device": "cpu"} loads it into the host\'s memory')
    helps.append('a smaller number format (options {"torch_dtype": "bfloat16"}), or a smaller or quantized model')
    if evictable > 0:
        helps.append(f"POST /inference/cache/clear gives back {format_bytes(evictable)} of other loaded models")
    if budget is not None:
        helps.append(f"raise AIML_MEMORY_BUDGET, now {format_bytes(budget)}")
    return InsufficientMemoryError(
        f"Model '{model_name}' needs {format_bytes(needed)} of memory on {device}, and {there} is free. "
        f"What helps: {'; '.join(helps)}",
        details={"needed_bytes": needed, "free_bytes": free, "device": device, "budget_bytes": budget},
    )


_Place = tuple[str, str, str]


class PeakRecords:
    """The most memory that each model was seen to take, per content digest, device and dtype, on disk.

    One JSON file, shared by every process on the data folder: each writer merges under a lock file and
    replaces the whole. A file that cannot be read counts as empty; one that cannot be written leaves the
    records in memory. Safe to use from any thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._peaks: dict[_Place, int] = {}

    def peak(self, digest: str | None, device: str, dtype: str | None) -> int | None:
        """Returns the measured peak in bytes; None where there is none."""
        if digest is None:
            return None
        with self._lock:
            self._take_in(_read(self._path))
            return self._peaks.get(_place(digest, device, dtype))

    def record(self, digest: str | None, device: str, dtype: str | None, peak_bytes: int) -> None:
        """Notes a measured peak, if it is the highest so far. Without a digest there is nothing to know it by."""
        if digest is None or not 0 < peak_bytes < _MAX_BYTES:
            return
        place = _place(digest, device, dtype)
        with self._lock:
            if self._peaks.get(place, 0) >= peak_bytes:
                return
            self._take_in({place: peak_bytes})
            try:
                self._save()
            except OSError as exc:
                logger.warning("measured memory cannot be saved to %s: %s", self._path, exc)

    def prefer(self, estimate: MemoryEstimate, digest: str | None, device: str, dtype: str | None) -> int:
        """Returns the bytes to reserve: the measured peak where there is one, else the estimate.

        Never less than weights whose size is known exactly: while they are mapped and were not touched yet
        they do not show.
        """
        peak = self.peak(digest, device, dtype)
        if peak is None:
            return estimate.total_bytes
        return max(peak, estimate.weights_bytes if estimate.method == "safetensors headers" else 0)

    def _take_in(self, found: Mapping[_Place, int]) -> None:
        for place, peak in found.items():
            # Taken out and put back: the longest unseen stands first and goes first.
            self._peaks[place] = max(peak, self._peaks.pop(place, 0))
        for place in list(self._peaks)[: max(len(self._peaks) - _MAX_RECORDS, 0)]:
            del self._peaks[place]

    def _save(self) -> None:
        folder = self._path.parent
        folder.mkdir(parents=True, exist_ok=True)
        with file_locked(folder / f"{self._path.name}.lock", timeout=_LOCK_TIMEOUT):
            ours = dict(self._peaks)
            self._take_in(_read(self._path))
            self._take_in(ours)
            rows = [
                {"digest": digest, "device": device, "dtype": dtype, "bytes": peak}
                for (digest, device, dtype), peak in self._peaks.items()
            ]
            data = orjson.dumps({"format": _FORMAT, "peaks": rows}, option=orjson.OPT_INDENT_2)
            write_durably(self._path, data, folder / f"{self._path.name}.{unique_name()}")


def _place(digest: str, device: str, dtype: str | None) -> _Place:
    return digest, memory_of(device), dtype or "auto"


def _read(path: Path) -> dict[_Place, int]:
    try:
        if path.stat().st_size > _MAX_FILE:
            return {}
        value = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    rows = value.get("peaks") if isinstance(value, dict) and value.get("format") == _FORMAT else None
    return dict(filter(None, map(_row, rows if isinstance(rows, list) else [])))


def _row(row: Any) -> tuple[_Place, int] | None:
    match row:
        case {"digest": str(digest), "device": str(device), "dtype": str(dtype), "bytes": int(peak)}:
            return ((digest, device, dtype), peak) if peak is not True and 0 < peak < _MAX_BYTES else None
    return None
