"""What the hub and the way there refuse, in the platform's words."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from src.core.errors import ForbiddenError, NotFoundError, SourceUnavailableError
from src.core.sources.hub_patience import PassingError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_PASSING = (408, 425, 429)
_FORBIDDEN = (401, 403, 451)
_SAID = 300  # characters of what the server says


@dataclass(frozen=True, slots=True)
class Repository:
    """Where a repository is: `kind` is model or dataset, `endpoint` the hub's address without a slash at the end."""

    kind: str
    name: str
    endpoint: str

    @property
    def page(self) -> str:
        """Its page for people."""
        return f"{self.endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"


@contextmanager
def translated(repo: Repository, revision: str | None = None) -> Iterator[None]:
    """Turns what the hub's client raises into `PassingError` where trying again may help, else the final error."""
    import httpx2  # the library that huggingface_hub speaks HTTP with
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as exc:
        raise _answered(exc, repo, revision) from exc
    except OfflineModeIsEnabled as exc:
        raise SourceUnavailableError(
            "HF_HUB_OFFLINE is set, so nothing can be downloaded: unset it and try again"
        ) from exc
    except httpx2.HTTPError as exc:
        raise PassingError(
            f"The hub at {repo.endpoint} cannot be reached ({exc or type(exc).__name__}): check the network, the "
            "proxy settings and HF_ENDPOINT, then try again; what has arrived is kept"
        ) from exc


def _answered(exc: "HfHubHTTPError", repo: Repository, revision: str | None) -> Exception:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status, said = exc.response.status_code, f" ({exc.server_message[:_SAID]})" if exc.server_message else ""
    what = f"{repo.kind} '{repo.name}'"
    if isinstance(exc, GatedRepoError):
        return ForbiddenError(
            f"{repo.name} is gated: accept its licence at {repo.page} with your account, then set HF_TOKEN to a token "
            f"of that account that may read it{said}"
        )
    if isinstance(exc, RevisionNotFoundError):
        return NotFoundError(f"There is no revision '{revision}' of the {what}: check the branch, tag or commit")
    if isinstance(exc, RepositoryNotFoundError):
        return NotFoundError(
            f"There is no {what} on {repo.endpoint}, or it is private: check the name (org/name); for a private one "
            "set HF_TOKEN to a token that may read it"
        )
    if status in _FORBIDDEN:
        return ForbiddenError(
            f"The hub refuses access to the {what} with status {status}{said}: check that HF_TOKEN is valid and "
            "may read it"
        )
    if status in (404, 410):
        return NotFoundError(f"A file of the {what} is not there any more{said}: try again")
    if status in _PASSING or status >= 500:
        return PassingError(
            f"The hub at {repo.endpoint} answers with status {status}{said}: try again later; what has arrived is kept",
            _asked_to_wait(exc),
        )
    return SourceUnavailableError(f"The hub at {repo.endpoint} answers with status {status}{said}: check HF_ENDPOINT")


def _asked_to_wait(exc: "HfHubHTTPError") -> float:
    # Its `utils` exports by a table that mypy does not read.
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    headers = exc.response.headers
    after = headers.get("Retry-After", "")
    if after.isdigit():
        return float(after)
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit and not limit.remaining else 0.0
