"""Log lines that have to stay lines of JSON whatever is logged."""

import json
import logging

import pytest

from src.core.logs import JsonFormatter


@pytest.mark.parametrize("text", ["plain", "\udcff is no Unicode", "two\nlines", "中文"])
def test_every_record_is_one_line_of_json(text: str) -> None:
    record = logging.makeLogRecord({"msg": text, "levelname": "INFO", "name": "src", "path": text})
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["event"] == text
