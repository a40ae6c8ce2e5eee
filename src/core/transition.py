"""A stage transition: which version each reference stood for, and which one it will stand for.

`core` knows no loaded models: a transition is told how to bring the next versions up before it moves
the aliases, by a `HotSwap` that whoever serves hands in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from src.core.errors import ConflictError, ModelNotFoundError
from src.core.registry.names import parse_reference
from src.core.registry.resolution import choose
from src.core.registry.versions import ALIASED_STAGES, RegisteredModel, RegisteredVersion

Switch = Callable[[], RegisteredVersion]


class TransitionRefusedError(ConflictError):
    """The version that was to take over cannot serve; the one that served goes on."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """One version takes over from another (None: from nothing) for whoever asks by `reference`."""

    reference: str
    before: RegisteredVersion | None
    after: RegisteredVersion


@dataclass(frozen=True, slots=True)
class SwapReport:
    """What a transition did to loaded models: the versions that were loaded for it, and seconds without any."""

    loaded: list[dict[str, Any]] = field(default_factory=list)
    downtime_seconds: float = 0.0


class HotSwap(Protocol):
    """Brings the next versions up, switches, and lets the old ones drain."""

    def __call__(
        self, plan: Sequence[Replacement], switch: Switch, undo: Callable[[], None], *, allow_downtime: bool
    ) -> tuple[RegisteredVersion, SwapReport]:
        """Returns what `switch` returned; calls `undo` where it switched and the next version then failed to load.

        Raises `TransitionRefusedError`, or `InsufficientMemoryError` where both versions do not fit.
        """
        ...


def without_models(
    plan: Sequence[Replacement], switch: Switch, undo: Callable[[], None], *, allow_downtime: bool
) -> tuple[RegisteredVersion, SwapReport]:
    """Switches where nobody has loaded a model."""
    return switch(), SwapReport()


def replacements(before: RegisteredModel, after: RegisteredModel) -> list[Replacement]:
    """Returns what changes for those who ask by the bare name, or by the alias of a stage."""
    found = []
    for reference in (before.name, *(f"{before.name}@{stage}" for stage in ALIASED_STAGES)):
        old, new = _chosen(before, reference), _chosen(after, reference)
        if new is not None and (old is None or old.version != new.version):
            found.append(Replacement(reference, old, new))
    return found


def _chosen(model: RegisteredModel, reference: str) -> RegisteredVersion | None:
    try:
        return choose(model, parse_reference(reference), reference).registered
    except ModelNotFoundError:
        return None
