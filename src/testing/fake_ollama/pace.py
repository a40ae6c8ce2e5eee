"""How fast the fake is, and what it counts. Both can be read, and the pace changed, while it runs."""

from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """Seconds that things take.

    `token_delay` passes asleep before each token, `token_cpu` is burnt as CPU time; `load_delay` passes
    when a model is loaded, `pull_delay` before each part of a pulled file (`pull_part` bytes).
    `answer_tokens` is the length of an answer that nothing bounds; it may be up to twice as long.
    """

    token_delay: float = 0.0
    token_cpu: float = 0.0
    load_delay: float = 0.0
    pull_delay: float = 0.0
    answer_tokens: int = 32
    pull_part: int = 262_144


@dataclass(slots=True)
class Counts:
    """What has happened: `active` generations run now, `stopped` ones lost their client, `loads` models."""

    active: int = 0
    finished: int = 0
    stopped: int = 0
    loads: int = 0
