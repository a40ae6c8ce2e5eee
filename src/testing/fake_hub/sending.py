"""Sends answers over a connection: ranges of files, at a pace, with what goes wrong on demand."""

import re
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from src.testing.fake_hub.answers import Answer
from src.testing.fake_hub.faults import Faults
from src.testing.fake_hub.repos import FakeFile
from src.testing.fake_hub.requests import ReceivedRequest

_CHUNK = 256 * 1024
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class CutError(Exception):
    """The connection is to end here, in the middle of an answer."""


class Sender:
    """Sends one answer to one request."""

    def __init__(
        self, handler: BaseHTTPRequestHandler, request: ReceivedRequest, faults: Faults, stopping: threading.Event
    ) -> None:
        self._handler = handler
        self._request = request
        self._faults = faults
        self._stopping = stopping

    def send(self, answer: Answer) -> None:
        """Sends headers and body; raises `CutError` where the connection is to be cut."""
        if isinstance(answer.body, FakeFile):
            self._send_file(answer, answer.body)
        else:
            self._send_head(answer.status, {**answer.headers, "Content-Length": str(len(answer.body))})
            if self._request.method != "HEAD":
                self._handler.wfile.write(answer.body)

    def _send_head(self, status: int, headers: dict[str, str]) -> None:
        self._request.status = status
        self._handler.send_response_only(status, HTTPStatus(status).phrase)
        for name, value in headers.items():
            self._handler.send_header(name, value)
        self._handler.end_headers()

    def _send_file(self, answer: Answer, file: FakeFile) -> None:
        asked = _RANGE.fullmatch(self._handler.headers.get("Range", "")) if self._faults.ranges else None
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2]) + 1, file.size) if asked and asked[2] else file.size
        if asked and start >= end:
            self._send_head(416, {"Content-Range": f"bytes */{file.size}", "Content-Length": "0"})
            return
        headers = {**answer.headers, "Content-Length": str(end - start)}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.size}"
        self._request.file, self._request.start = file.path, start
        self._send_head(206 if asked else answer.status, headers)
        if self._request.method != "HEAD":
            self._send_content(file, start, end)

    def _send_content(self, file: FakeFile, start: int, end: int) -> None:
        cut = self._faults.take_cut(file.path, end - start)
        flipped = start + (end - start) // 2 if self._faults.take_flip(file.path) else -1
        stop = end if cut is None else start + cut
        with file.open() as content:
            content.seek(start)
            while start < stop and (chunk := content.read(min(self._chunk_size(), stop - start))):
                if start <= flipped < start + len(chunk):
                    chunk = _flip(chunk, flipped - start)
                self._request.sent += len(chunk)  # before it goes out, so that who has it all finds it counted
                self._handler.wfile.write(chunk)
                start += len(chunk)
                self._pause(len(chunk))
        if cut is not None:
            raise CutError

    def _chunk_size(self) -> int:
        pace = self._faults.bytes_per_second
        return _CHUNK if pace is None else max(1, min(_CHUNK, int(pace / 20)))

    def _pause(self, count: int) -> None:
        pace = self._faults.bytes_per_second
        if pace and self._stopping.wait(count / pace):
            raise CutError


def _flip(chunk: bytes, position: int) -> bytes:
    return chunk[:position] + bytes([chunk[position] ^ 1]) + chunk[position + 1 :]
