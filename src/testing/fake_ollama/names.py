"""Model names: `[host/][namespace/]model[:tag]`."""

import re
from dataclasses import dataclass
from typing import Self

from src.testing.fake_ollama.errors import ApiError

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")


@dataclass(frozen=True, slots=True)
class ModelName:
    """A complete model name."""

    host: str
    namespace: str
    model: str
    tag: str

    @classmethod
    def parse(cls, text: str, refusal: str = "invalid model name") -> Self:
        """Reads a name as a user writes it; raises `ApiError` 400 with `refusal`."""
        path, tag = text.split("://", 1)[-1], DEFAULT_TAG
        # A colon before the last slash belongs to the host's port.
        if ":" in path.rsplit("/", 1)[-1]:
            path, tag = path.rsplit(":", 1)
        parts = path.split("/")
        if len(parts) > 3:
            raise ApiError(400, refusal)
        host, namespace, model = [DEFAULT_HOST, DEFAULT_NAMESPACE][: 3 - len(parts)] + parts
        if not _HOST.fullmatch(host) or not all(_PART.fullmatch(part) for part in (namespace, model, tag)):
            raise ApiError(400, refusal)
        return cls(host, namespace, model, tag)

    @property
    def full(self) -> str:
        """The name with nothing left out."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def short(self) -> str:
        """The name as lists show it: without the default host and namespace, always with the tag."""
        text = self.full
        for default in (DEFAULT_HOST, DEFAULT_NAMESPACE):
            if not text.startswith(f"{default}/"):
                break
            text = text.removeprefix(f"{default}/")
        return text
