"""Log lines that have to stay lines of JSON whatever is logged."""

import io
import json
import logging
from collections import deque

import pytest

from src.core import logs
from src.core.logs import JsonFormatter
from tests.service import wait_until


@pytest.mark.parametrize("text", ["plain", "\udcff is no Unicode", "two\nlines", "中文"])
def test_every_record_is_one_line_of_json(text: str) -> None:
    record = logging.makeLogRecord({"msg": text, "levelname": "INFO", "name": "src", "path": text})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["event"] == text


def test_a_line_is_written_whoever_else_logs_in_the_same_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    class Crowded(deque[str]):
        """Lines among which another thread's stands already."""

        def append(self, line: str) -> None:
            super().append("theirs")
            super().append(line)

    handler = logs.GatheringHandler()
    written = io.StringIO()
    monkeypatch.setattr(handler, "stream", written)
    monkeypatch.setattr(handler, "_lines", Crowded())
    handler.keep("ours")
    wait_until(lambda: "ours" in written.getvalue(), 20, "the line to be written")
    assert written.getvalue() == "theirs\nours\n"
