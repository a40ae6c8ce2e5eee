"""The fake Ollama as a command."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from src.testing.fake_ollama.__main__ import server_from

ROOT = Path(__file__).parents[4]


def test_it_serves_until_it_is_told_to_end() -> None:
    arguments = ["--port", "0", "--model", "seer=completion,vision"]
    command = [sys.executable, "-m", "src.testing.fake_ollama", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        models = httpx.get(f"{url}/api/tags").json()["models"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert [model["name"] for model in models] == ["seer:latest"]
    assert models[0]["capabilities"] == ["completion", "vision"]


def test_it_sets_pace_and_limits() -> None:
    server = server_from(["--token-cpu-ms", "2", "--token-delay-ms", "3", "--max-queue", "5"])
    assert (server.pace.token_cpu, server.pace.token_delay) == (0.002, 0.003)
    assert server.limits.max_queue == 5


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        server_from(["--help"])
    assert "--token-cpu-ms" in capsys.readouterr().out
