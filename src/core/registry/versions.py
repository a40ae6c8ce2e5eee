"""What the registry says: versions, the models that they belong to, and resolutions."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import Any

STAGES = ("production", "staging", "archived", "none")
ALIASED_STAGES = ("production", "staging")
"""The stages whose serving version is named by an alias, in order of precedence."""

DEFAULT_OLLAMA_TASK = "text-generation"


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """One version of a registered model; times in seconds since 1970."""

    name: str
    version: str
    source: str
    tags: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    description: str = ""
    created_at: float = 0.0
    updated_at: float = 0.0
    status: str = "READY"

    @property
    def stage(self) -> str:
        """The stage: what an alias says, else what the tag says."""
        return next((stage for stage in ALIASED_STAGES if stage in self.aliases), self.tagged_stage)

    @property
    def tagged_stage(self) -> str:
        """The stage that the tag alone tells."""
        stage = self.tags.get("stage", "").strip().lower()
        return stage if stage in STAGES else "none"

    @property
    def disagreement(self) -> str | None:
        """How tag and alias contradict each other, in words; None where they do not."""
        if not self.tags.get("stage") or self.stage == self.tagged_stage:
            return None
        return (
            f"version {self.version} of '{self.name}' is tagged {self.tagged_stage}, but the alias "
            f"'{self.stage}' names it; the alias counts"
        )

    @property
    def is_ready(self) -> bool:
        """Whether MLflow has finished creating it."""
        return self.status == "READY"

    @property
    def number(self) -> int:
        """The version as a number, to sort by."""
        return int(self.version)

    @property
    def ollama_name(self) -> str | None:
        """The model's name in Ollama."""
        return self.tags.get("ollama_model_name") or None

    @property
    def engine(self) -> str | None:
        """The engine it is registered for; a version with an Ollama name and no engine is Ollama's."""
        return self.tags.get("engine") or ("ollama" if self.ollama_name else None)

    @property
    def task(self) -> str | None:
        """The task it is registered for."""
        return self.tags.get("inference_task") or (DEFAULT_OLLAMA_TASK if self.engine == "ollama" else None)

    @property
    def repo(self) -> str | None:
        """The repository of the version store that holds its files."""
        return self.tags.get("lakefs_repo") or self._stored_at()[0]

    @property
    def commit(self) -> str | None:
        """The commit that holds its files."""
        return self.tags.get("lakefs_commit") or self._stored_at()[1]

    @property
    def digest(self) -> str | None:
        """The digest of its content."""
        return self.tags.get("model_digest") or None

    @property
    def has_priority(self) -> bool:
        """Whether it is the first to follow a serving version that leaves."""
        return self.tags.get("inference_priority") == "1"

    @property
    def stage_changed_at(self) -> float:
        """When its stage was last set, in seconds since 1970; 0 where nobody recorded it."""
        try:
            recorded = float(self.tags.get("stage_changed_at", 0))
        except ValueError:
            return 0.0
        return recorded if isfinite(recorded) else 0.0

    def _stored_at(self) -> tuple[str | None, str | None]:
        scheme, _, path = self.source.partition("://")
        repo, _, rest = path.partition("/")
        commit = rest.partition("/")[0]
        return (repo, commit) if scheme == "lakefs" and repo and commit else (None, None)


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """One registered name with all its versions, the newest first, and its aliases.

    `stored` is the name under which MLflow has it.
    """

    name: str
    stored: str
    versions: tuple[RegisteredVersion, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, stored: str, versions: list[RegisteredVersion], aliases: Mapping[str, str]
    ) -> "RegisteredModel":
        """Puts a model together: sorts the versions and gives each one its aliases."""
        named = [
            replace(version, aliases=tuple(sorted(a for a, number in aliases.items() if number == version.version)))
            for version in versions
        ]
        return cls(name, stored, tuple(sorted(named, key=lambda v: v.number, reverse=True)), dict(aliases))

    def version(self, number: str | None) -> RegisteredVersion | None:
        """Returns one version, or None."""
        return next((version for version in self.versions if version.version == number), None)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values that `from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RegisteredModel":
        """Returns the model that `to_json` described."""
        versions = [
            RegisteredVersion(**{**version, "aliases": tuple(version["aliases"])}) for version in values["versions"]
        ]
        return cls.of(values["name"], values["stored"], versions, values["aliases"])


@dataclass(frozen=True, slots=True)
class Resolution:
    """The version that a reference stands for.

    `alias` is the one that led there: None for the newest version and for one asked by number.
    """

    registered: RegisteredVersion
    alias: str | None = None
    warnings: tuple[str, ...] = ()
