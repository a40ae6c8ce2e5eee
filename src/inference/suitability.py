"""Suitability: which engine can load a model's files for a task."""

from pathlib import Path

from src.core.errors import InvalidInputError
from src.inference.engines.base import BaseEngine
from src.inference.router import TASK_ALIASES, TaskRouter, canonical_task


class EngineJudge:
    """Judges by what the engines themselves say; see `src.core.lifecycle.registration.Judge`."""

    def __init__(self, router: TaskRouter) -> None:
        self._router = router

    def __call__(self, files: Path, task: str, engine: str | None) -> tuple[str, str]:
        """Returns (canonical task, engine) for the files in a folder."""
        canonical = canonical_task(task)
        if engine is None and task in TASK_ALIASES:
            engine = TASK_ALIASES[task][1]
        if engine is not None:
            candidate = self._router.route(task, engine).engine
            reason = None if candidate.is_network else candidate.refusal(files, canonical)
            if reason:
                raise InvalidInputError(f"Engine '{engine}' cannot load this commit for task '{canonical}': {reason}")
            return canonical, engine
        return canonical, self._able(files, canonical)

    def _able(self, files: Path, task: str) -> str:
        names = self._router.routes().get(task, [])
        if not names:
            self._router.route(task, "transformers")  # raises what is wrong with the task
        engines = {name: self._router.route(task, name).engine for name in names}
        in_house = {name: engine for name, engine in engines.items() if not engine.is_network}
        # One that knows the architecture goes before one that cannot tell.
        for name in sorted(in_house, key=lambda name: in_house[name].tasks_for(files) is None):
            if in_house[name].refusal(files, task) is None:
                return name
        raise InvalidInputError(
            f"No engine can load this commit for task '{task}': {_reasons(in_house, files, task)}",
            details={"engines": sorted(in_house)},
        )


def _reasons(engines: dict[str, BaseEngine], files: Path, task: str) -> str:
    return "; ".join(f"{name}: {engine.refusal(files, task)}" for name, engine in engines.items()) or "there is none"
