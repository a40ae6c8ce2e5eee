"""The fake hub as a command."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from src.testing.fake_hub.__main__ import server_from

ROOT = Path(__file__).parents[4]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in ("models/org/tiny/config.json", "models/alone/sub/a.txt", "models/alone/b.txt", "datasets/org/t/x.csv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    return tmp_path


def test_it_serves_a_folder_until_it_is_told_to_end(folder: Path) -> None:
    command = [sys.executable, "-m", "src.testing.fake_hub", "--port", "0", "--folder", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        paths = {
            name: [entry["path"] for entry in httpx.get(f"{url}/api/{name}/tree/main?recursive=true").json()]
            for name in ("models/org/tiny", "models/alone", "datasets/org/t")
        }
        got = httpx.get(f"{url}/org/tiny/resolve/main/config.json", follow_redirects=True).text
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert got == "models/org/tiny/config.json"
    assert paths == {
        "models/org/tiny": ["config.json"],
        "models/alone": ["sub", "b.txt", "sub/a.txt"],
        "datasets/org/t": ["x.csv"],
    }


def test_it_sets_faults(folder: Path) -> None:
    given = ["--cut-after", "5", "--cuts", "2", "--unavailable", "1", "--flip", "a.txt", "--bytes-per-second", "9"]
    faults = server_from(["--folder", str(folder), *given]).faults
    assert faults.bytes_per_second == 9
    assert [faults.take_cut("x", 10) for _ in range(3)] == [5, 5, None]
    assert [faults.take_refusal("/") is not None for _ in range(2)] == [True, False]
    assert [faults.take_flip("a.txt") for _ in range(2)] == [True, False]


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        server_from(["--help"])
    assert "--cut-after" in capsys.readouterr().out
