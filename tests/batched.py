"""Comparing what a runner answers to several requests together with what it answers to each alone."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FINE = 1e-4
"""How far numbers may be apart: sums in another order, no more."""


def same(one: Any, other: Any, tolerance: float = FINE) -> None:
    """Asserts that two raw answers are the same, and their numbers nearly."""
    assert type(one) is type(other), (one, other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            same(one[name], other[name], tolerance)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), (one, other)
        for left, right in zip(one, other, strict=True):
            same(left, right, tolerance)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=tolerance)
    elif isinstance(one, Exception):
        assert str(one) == str(other)
    else:
        assert one == other


@contextmanager
def sizes(model: Any) -> Iterator[list[int]]:
    """Notes how many requests each call of a model was for: of `generate` where it generates, else of its forward."""
    seen, generate = list[int](), getattr(model, "generate", None)

    def note(module: Any, arguments: Any, output: Any) -> None:
        found = next((output[name] for name in ("logits", "start_logits", "last_hidden_state") if name in output), None)
        if found is not None:
            seen.append(len(found))

    def noted(*arguments: Any, **named: Any) -> Any:
        output = generate(*arguments, **named)
        seen.append(len(output["sequences"] if isinstance(output, dict) else output))
        return output

    handle = model.register_forward_hook(note)
    if generate is not None and model.can_generate():
        handle.remove()
        model.generate = noted
    try:
        yield seen
    finally:
        handle.remove()
        model.__dict__.pop("generate", None)


class Folders:
    """Model folders of a test module, each built once, and a loader for each."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, build: Callable[..., Any], task: str, **options: Any) -> Callable[[], tuple[Any, Any]]:
        """Returns what loads a model that `build` saves: the engine, and the model."""
        from src.inference.engines.transformers.engine import TransformersEngine

        path = self._root / f"{build.__module__}.{build.__name__}{sorted(options)}"
        if not path.exists():
            path.mkdir()
            build(path, **options)
        engine = TransformersEngine({"device": "cpu"})
        return lambda: (engine, engine.load_model("it", model_path=path, task=task))


def answers(engine: Any, runner: Any, requests: Sequence[Any], options: dict[str, Any]) -> tuple[list[Any], list[int]]:
    """Returns what a batch is answered, and the sizes of the model's calls; one that breaks is no batch."""
    broken = _Broken(logging.WARNING)
    engine.logger.addHandler(broken)
    try:
        with sizes(runner.model) as seen:
            found = engine.infer_batch(runner, requests, dict(options))
    finally:
        engine.logger.removeHandler(broken)
    return found, seen


class _Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(record.getMessage()) from (record.exc_info[1] if record.exc_info else None)


def alone(runner: Any, requests: Sequence[Any], options: dict[str, Any]) -> list[Any]:
    """Returns what each request is answered by itself."""
    found = list[Any]()
    for request in requests:
        try:
            found.append(runner.run(request, dict(options)))
        except ValueError as exc:
            found.append(exc)
    return found


def check(
    load: Callable[[], tuple[Any, Any]],
    requests: Sequence[Any],
    options: dict[str, Any],
    *,
    together: int,
    tolerance: float = FINE,
) -> None:
    """Asserts that requests in one batch, in either order, are answered as each alone.

    `load`: an engine and a model that it has just loaded; `together`: how many requests the largest of the model's
    calls is for.
    """
    expected = alone(load()[1], requests, options)
    for order in (range(len(requests)), range(len(requests) - 1, -1, -1)):
        engine, runner = load()
        found, _ = answers(engine, runner, [requests[place] for place in order], options)
        for place, raw in zip(order, found, strict=True):
            same(expected[place], raw, tolerance)
        # The first batch tries the model; what it teaches holds for the next one.
        again, seen = answers(engine, runner, requests, options)
        same(expected, again, tolerance)
        assert max(seen) == together, seen
