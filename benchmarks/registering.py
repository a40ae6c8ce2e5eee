"""A model's way into our service, over its HTTP API: upload, commit, registration in production."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.serving import Server

_CHUNK = 1 << 20


def register(server: Server, name: str, folder: Path, task: str, engine: str) -> None:
    """Registers the files of a folder as a production version of `name`; raises `RuntimeError` where that fails."""
    boundary = uuid.uuid4().hex
    form = _Form(boundary, name, sorted(path for path in folder.iterdir() if path.is_file()))
    _ok(server.send("/models/upload", iter(form), f"multipart/form-data; boundary={boundary}", len(form)))
    committed = _ok(server.post("/models/upload_to_lakefs", {"repo_name": name, "local_model_name": name}))
    version = {
        "registered_name": name,
        "task": task,
        "engine": engine,
        "lakefs_repo": name,
        "commit_id": committed["commit_id"],
        "stage": "production",
    }
    _ok(server.post("/models/register_from_lakefs", version))


def _ok(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer and answer.get("success") is False:
        raise RuntimeError(f"the model could not be registered: {answer['error']}")
    return answer


class _Form:
    """A multipart body that is read from disk while it is sent."""

    def __init__(self, boundary: str, name: str, files: list[Path]) -> None:
        self._name = f'--{boundary}\r\nContent-Disposition: form-data; name="name"\r\n\r\n{name}\r\n'.encode()
        self._parts = [(_head(boundary, path), path) for path in files]
        self._end = f"--{boundary}--\r\n".encode()

    def __len__(self) -> int:
        files = sum(len(head) + path.stat().st_size + 2 for head, path in self._parts)
        return len(self._name) + files + len(self._end)

    def __iter__(self) -> Iterator[bytes]:
        yield self._name
        for head, path in self._parts:
            yield head
            with open(path, "rb") as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
            yield b"\r\n"
        yield self._end


def _head(boundary: str, path: Path) -> bytes:
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    ).encode()
