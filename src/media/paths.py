"""Files that a request names: opened below the media roots and nowhere else."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from src.core.config import ROOT, Settings, is_loopback
from src.core.errors import InvalidInputError
from src.media.content import Content
from src.media.problems import too_many_bytes

_INSTEAD = "upload the file (POST /inference/infer/upload), or send it as a data: URI"


def media_roots(settings: Settings) -> tuple[Path, ...]:
    """Returns the folders whose files an HTTP request may name: those of AIML_MEDIA_ROOTS.

    Where none are set: `media` in the data folder and the repository's `samples`, as long as only this machine can
    ask; none beyond it.
    """
    if settings.media_roots:
        return tuple(Path(root).expanduser().absolute() for root in settings.media_roots)
    if is_loopback(settings.host):
        return settings.data_dir / "media", ROOT / "samples"
    return ()


def open_trusted(path: str | os.PathLike[str], kind: str, field: str, bound: int) -> Content:
    """Opens any file, for a caller in this process; raises `InvalidInputError` or `PayloadTooLargeError`."""
    named = Path(path).expanduser()
    try:
        return _opened(named, kind, field, bound)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        where = "" if named.is_absolute() else f" (looked for in {Path.cwd()})"
        raise _refused(field, f"the file '{_short(str(path))}' cannot be read: {why}{where}") from exc


def open_below(path: str, roots: Sequence[Path], kind: str, field: str, bound: int) -> Content:
    """Opens a file below one of the roots, for a request; a relative path is looked for below each of them.

    Links are followed first, and the file must lie below a root then too. What lies elsewhere is refused without
    a look at whether it exists. Raises `InvalidInputError`, or `PayloadTooLargeError` past `bound`.
    """
    if not roots:
        raise _refused(field, f"files cannot be named by path here (AIML_MEDIA_ROOTS): {_INSTEAD}")
    named = Path(path)
    if ".." in named.parts or "\0" in path:
        raise _refused(field, f"a path may not hold '..': {_INSTEAD}")
    real_roots = [Path(os.path.realpath(root)) for root in roots]
    for candidate in _candidates(named, [*roots, *real_roots]):
        real = Path(os.path.realpath(candidate))
        if not _is_below(real, real_roots):
            raise _outside(field, path)
        try:
            content = _opened(real, kind, field, bound, links=False)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as exc:
            raise _refused(field, f"the file '{_short(path)}' cannot be read: {exc.strerror}") from exc
        if not _is_still_below(content, real_roots):
            content.close()
            raise _outside(field, path)
        return content
    if named.is_absolute() and not _is_below(named, [*roots, *real_roots]):
        raise _outside(field, path)
    raise _refused(field, f"there is no file '{_short(path)}' below the media roots: {_INSTEAD}")


def _candidates(named: Path, roots: Sequence[Path]) -> list[Path]:
    if named.is_absolute():
        return [named] if _is_below(named, roots) else []
    return [root / named for root in roots]


def _is_below(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) and path != root for root in roots)


def _is_still_below(content: Content, roots: Sequence[Path]) -> bool:
    """Whether the file that was opened is where it was looked for: a folder on the way may have been exchanged."""
    link = f"/proc/self/fd/{content.descriptor}"
    return not os.path.exists(link) or _is_below(Path(os.path.realpath(link)), roots)


def _opened(path: Path, kind: str, field: str, bound: int, *, links: bool = True) -> Content:
    # A pipe would make opening wait for a writer.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise _refused(field, f"'{_short(str(path))}' is no file")
        if facts.st_size > bound:
            raise too_many_bytes(kind, field, facts.st_size, bound)
    except BaseException:
        os.close(descriptor)
        raise
    return Content(descriptor, facts.st_size, field)


def _outside(field: str, path: str) -> InvalidInputError:
    return _refused(field, f"the path '{_short(path)}' is not below a media root (AIML_MEDIA_ROOTS): {_INSTEAD}")


def _refused(field: str, problem: str) -> InvalidInputError:
    return InvalidInputError(f"`{field}`: {problem}", details={"field": field})


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
