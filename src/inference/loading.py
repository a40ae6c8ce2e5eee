"""Starts the worker that a model runs in: a process where its classes can be imported there, else a thread."""

from dataclasses import dataclass

from src.core import metrics
from src.core.config import Settings
from src.core.settings_sections import ModelSettings
from src.inference.engines.base import BaseEngine
from src.inference.models.base import BaseModelHandler
from src.inference.workers.base import DeathListener, LoadSpec, Worker
from src.inference.workers.host import NotImportableError
from src.inference.workers.launching import Launcher
from src.inference.workers.process import ProcessWorker
from src.inference.workers.thread import ThreadWorker


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """What to start: the classes, the model, what its process wants imported, and whether it may be forked."""

    engine_class: type[BaseEngine]
    handler_class: type[BaseModelHandler]
    spec: LoadSpec
    modules: list[str]
    fork: bool
    own: ModelSettings


async def start_worker(plan: WorkerPlan, settings: Settings, launcher: Launcher, on_death: DeathListener) -> Worker:
    """Returns a worker with the model loaded; raises what went wrong."""
    metrics.model_loads.inc()
    workers, queue = settings.workers, settings.queue
    if plan.spec.engine and plan.spec.handler and workers.isolation == "process":
        worker: Worker = ProcessWorker(
            lambda connection: launcher.launch(connection, plan.modules, fork=plan.fork),
            start_timeout=workers.start_timeout,
            load_timeout=workers.load_timeout,
            max_batch_size=plan.own.max_batch_size or queue.max_batch_size,
            max_wait_ms=queue.max_wait_ms if plan.own.max_wait_ms is None else plan.own.max_wait_ms,
        )
        try:
            await worker.load(plan.spec, on_death)
            return worker
        except NotImportableError:
            pass  # made in this process, or found by a path that only this process has
    worker = ThreadWorker(plan.engine_class, plan.handler_class)
    await worker.load(plan.spec, on_death)
    return worker
