"""The verdict on a row: over HTTP equal to the direct call, and moved by each change of its input in both."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from tests.architectures.case import CHANGED, TOLERANCE, Case, Data, Outcome, difference
from tests.architectures.serving import Serving


@dataclass(frozen=True)
class Row:
    """A line of the table. `problem`: why it does not count, "" where it does."""

    task: str
    architecture: str
    equal: bool
    sensitive: tuple[str, ...]
    problem: str
    library: str

    @property
    def passes(self) -> bool:
        """Whether it counts."""
        return not self.problem


def judged(case: Case, serving: Serving) -> Row:
    """Runs a row; what goes wrong becomes its problem."""
    equal, sensitive, problems = False, tuple[str, ...](), list[str]()
    try:
        with serving.registered(case) as ask:
            inputs = {"": case.data()} | {name: change(case.data()) for name, change in case.changes.items()}
            direct = _answers(lambda data: case.direct(serving.folder(case), data), inputs, "the direct call")
            served = _answers(ask, inputs, "HTTP")
        problems += [text for name in inputs for text in differences(name, direct[name], served[name])]
        equal = not problems
        sensitive = tuple(name for name in case.changes if moved(direct, name) and moved(served, name))
        problems += [f"a changed {name} changes nothing" for name in case.changes if name not in sensitive]
        problems += [] if case.changes else ["no input is changed"]
    except Exception as exc:
        # A library may raise anything on the way; the table says what.
        problems.append(" ".join(f"{exc}".split())[:300] or type(exc).__name__)
    return Row(case.task, case.architecture, equal, sensitive, "; ".join(problems), _library())


def differences(name: str, direct: Outcome, served: Outcome) -> list[str]:
    """Returns in what two answers to one input differ."""
    where = f" (changed {name})" if name else ""
    if not direct.numbers:
        return [f"the direct call gives no numbers{where}"]
    found = []
    if _bare(direct.answer) != _bare(served.answer):
        found.append(f"HTTP answers {_shown(served)}, the direct call {_shown(direct)}{where}")
    if not (gap := difference(direct.numbers, served.numbers)) <= TOLERANCE:
        counts = f"{len(served.numbers)} and {len(direct.numbers)} of them"
        found.append(f"the numbers differ by {gap:.2g} ({counts}){where}")
    return found


def _bare(answer: str | list[str]) -> str | list[str]:
    """Returns an answer without the blanks around it."""
    return answer.strip() if isinstance(answer, str) else [text.strip() for text in answer]


def moved(answers: dict[str, Outcome], change: str) -> bool:
    """Whether a change moved the numbers; answers of unlike length are compared as far as both go."""
    before, after = answers[""].numbers, answers[change].numbers
    return difference(before[: len(after)], after[: len(before)]) >= CHANGED


def _answers(ask: Callable[[Data], Outcome], inputs: dict[str, Data], who: str) -> dict[str, Outcome]:
    answers = {}
    for name, data in inputs.items():
        try:
            answers[name] = ask(data)
        except Exception as exc:
            raise RuntimeError(f"{who} fails: {type(exc).__name__}: {exc}") from exc
    return answers


def _shown(outcome: Outcome) -> str:
    return json.dumps(outcome.answer)[:80]


def _library() -> str:
    return version("transformers")
