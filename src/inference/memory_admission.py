"""MemoryAdmission: the cache's admission by memory. Estimates before loading, measures after, remembers both."""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from src.core.gpu_manager import GpuManager
from src.core.memory import private_memory
from src.core.settings_sections import ModelSettings
from src.core.threads import in_thread
from src.inference import vram_estimator
from src.inference.admission import Ledger, PeakRecords, refusal
from src.inference.cache import LoadedModel
from src.inference.types import JsonObject, ServableModel

logger = logging.getLogger(__name__)

Files = Callable[[ServableModel], Awaitable[Path | None]]

SLACK = 1.1
"""What a measured peak is multiplied by: the next request may be a little longer."""


class MemoryAdmission:
    """Books memory for each load in one ledger, evicts idle models for it, or refuses.

    `files` puts a model's files in place; a model without files (somebody's own engine) is let in
    unless its peak is known.
    """

    def __init__(
        self,
        gpus: GpuManager,
        peaks: PeakRecords,
        files: Files,
        *,
        device: str = "auto",
        dtype: str = "auto",
        own: Callable[[ServableModel], ModelSettings] = lambda model: ModelSettings(),
        forks: Callable[[], bool] = lambda: False,
    ) -> None:
        self._gpus = gpus
        self._peaks = peaks
        self._files = files
        self._default_device, self._default_dtype = device, dtype
        self._own = own
        self._forks = forks
        budget = gpus.budget_bytes
        self._ledger = Ledger(gpus, None if budget is None else {"cpu": budget})

    async def admit(
        self,
        entry: LoadedModel,
        idle: Callable[[], list[LoadedModel]],
        evict: Callable[[], Awaitable[bool]],
    ) -> None:
        """Books what the model is expected to take; evicts idle models only if that makes room."""
        path = await self._files(entry.model)
        device, wanted = await in_thread(lambda: self._wanted(entry, path))
        while self._ledger.reserve(entry, device, wanted) is None:
            held = {id(reservation.key): reservation.bytes for reservation in self._ledger.reservations()}
            evictable = sum(held.get(id(other), 0) for other in idle())
            if self._ledger.shortfall(device, wanted) > evictable or not await evict():
                others = sum(held.values())
                raise refusal(
                    entry.model.name, wanted, self._ledger.free(device), device, self._ledger.budget(device), others
                )

    def loaded(self, entry: LoadedModel) -> None:
        """Notes how much of what was booked shows in measured free memory already."""
        # Weights that are only mapped are no one's as far as the kernel's free memory goes.
        if entry.worker is not None:
            self._ledger.settle(entry, None, shown_bytes=private_memory(entry.worker.pid) or 0)

    @property
    def overbooked(self) -> bool:
        """Whether more is booked on the host than its budget, since loaded models took more than was expected."""
        budget = self._ledger.budget("cpu")
        return budget is not None and self._ledger.booked("cpu") > budget

    def measure(self, entry: LoadedModel, *, leaving: bool = False) -> None:
        """Measures a loaded model, remembers its peak and, unless it is leaving, books more where it took more."""
        worker, device = entry.worker, self._device(entry)
        measured = worker.memory_bytes() if worker is not None else None
        if worker is None or not measured or device != "cpu":
            return  # what a process takes on the host says nothing of its GPU
        registered = entry.model.registered
        self._peaks.record(
            registered.digest if registered else None, self._device(entry), self._dtype(entry), int(measured * SLACK)
        )
        if leaving:
            return
        booked = self.booked(entry)
        self._ledger.settle(entry, max(booked or 0, measured), shown_bytes=private_memory(worker.pid))

    def gone(self, entry: LoadedModel) -> None:
        """Gives back what was booked."""
        self._ledger.release(entry)

    def booked(self, entry: LoadedModel) -> int | None:
        """Returns the bytes booked for a model; None where none are."""
        return next((held.bytes for held in self._ledger.reservations() if held.key is entry), None)

    def on_host(self, device: str | None) -> bool:
        """Whether a load that asks for `device` will run on the CPU; only then may its worker be forked."""
        wish = device or self._default_device
        return wish == "cpu" or (wish == "auto" and self._gpus.devices()[0].name == "cpu")

    def report(self) -> JsonObject:
        """Returns, per device, what there is, what is free, what is booked and the budget, in bytes."""
        return {
            device.name: {
                "total_bytes": device.total_bytes,
                "free_bytes": device.free_bytes,
                "booked_bytes": self._ledger.booked(device.name),
                "budget_bytes": self._ledger.budget(device.name),
                "label": device.label,
            }
            for device in self._gpus.devices()
        }

    def _device(self, entry: LoadedModel) -> str:
        wish = entry.key.device or self._own(entry.model).device or self._default_device
        return self._gpus.devices()[0].name if wish == "auto" else wish

    def _dtype(self, entry: LoadedModel) -> str:
        return entry.key.dtype or self._own(entry.model).dtype or self._default_dtype

    def _wanted(self, entry: LoadedModel, path: Path | None) -> tuple[str, int]:
        device, dtype = self._device(entry), self._dtype(entry)
        registered = entry.model.registered
        digest = registered.digest if registered else None
        if path is None:
            return device, self._peaks.peak(digest, device, dtype) or 0
        runtime = vram_estimator.FORKED_RUNTIME_BYTES if self._forks() else vram_estimator.RUNTIME_BYTES
        estimate = vram_estimator.estimate(path, dtype=dtype, device=device, runtime_bytes=runtime)
        for warning in estimate.warnings:
            logger.warning("estimate of %s: %s", entry.model.name, warning)
        if estimate.method == "unknown":
            return device, self._peaks.peak(digest, device, dtype) or 0
        return device, self._peaks.prefer(estimate, digest, device, dtype)
