import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.core.errors import InvalidInputError
from src.core.sources import confinement
from src.core.sources.confinement import ConfinedDiedError, run_confined
from tests.service import is_alive, wait_until

BEGINNING = """
import os, sys, time
from src.core.errors import InvalidInputError
from src.core.sources.confinement import limit_files, limit_memory, serve
def work(request, send):
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Returns a function that makes a module of a function body and returns its name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(confinement, "_PASSED_ON", ("PATH", "PYTHONPATH"))

    def make(body: str) -> str:
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        (tmp_path / "childs_work.py").write_text(f"{BEGINNING}{lines}serve(work)\n")
        return "childs_work"

    return make


def run(module: str, request: dict[str, Any] | None = None, silent_seconds: float = 60.0) -> dict[str, Any]:
    return run_confined(module, request or {}, lambda message: None, silent_seconds=silent_seconds)


def test_a_request_comes_back_as_a_result_with_messages_on_the_way(child: Callable[[str], str]) -> None:
    module = child("print('noise')\nsend({'n': 1})\nsend({'n': 2})\nreturn {'got': request['text']}")
    heard: list[dict[str, Any]] = []
    text = "字" * 200_000  # more than a pipe holds
    assert run_confined(module, {"text": text}, heard.append, silent_seconds=60)["got"] == text
    assert heard == [{"n": 1}, {"n": 2}]


def test_an_error_of_ours_arrives_as_it_was_raised(child: Callable[[str], str]) -> None:
    module = child("raise InvalidInputError('no good', details={'path': 'a'})")
    with pytest.raises(InvalidInputError, match="no good") as caught:
        run(module)
    assert caught.value.details == {"path": "a"}


@pytest.mark.parametrize(
    ("body", "how"),
    [
        ("os.abort()", "SIGABRT"),
        ("raise TypeError('oh')", "exit status 1: TypeError: oh"),
        ("os._exit(3)", "exit status 3"),
        ("limit_memory(50_000_000)\nreturn {'size': len(bytes(400_000_000))}", "MemoryError"),
        ("limit_files(1000)\nwith open('/tmp/never', 'wb') as file:\n    file.write(bytes(2000))", "File too large"),
    ],
)
def test_how_a_child_ended_is_told(body: str, how: str, child: Callable[[str], str], tmp_path: Path) -> None:
    with pytest.raises(ConfinedDiedError, match=how):
        run(child(body.replace("/tmp/never", str(tmp_path / "written"))))


def test_a_child_that_says_nothing_is_ended(child: Callable[[str], str], tmp_path: Path) -> None:
    module = child(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    with pytest.raises(ConfinedDiedError, match=r"nothing was heard of it for 3 s"):
        run(module, silent_seconds=3)
    assert not is_alive(int((tmp_path / "pid").read_text()))


def test_a_listener_that_raises_ends_the_child(child: Callable[[str], str]) -> None:
    heard: list[int] = []

    def stop(message: dict[str, Any]) -> None:
        heard.append(message["pid"])
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        run_confined(child("send({'pid': os.getpid()})\ntime.sleep(600)"), {}, stop, silent_seconds=60)
    assert not is_alive(heard[0])


def test_a_child_sees_no_secrets(child: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIML_API_KEYS", "sesame")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame")
    assert "sesame" not in str(run(child("return dict(os.environ)")))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_a_child_ends_with_a_parent_that_is_killed(child: Callable[[str], str], tmp_path: Path) -> None:
    module = child(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)")
    code = (
        "from src.core.sources import confinement\n"
        "confinement._PASSED_ON = ('PATH', 'PYTHONPATH')\n"
        f"confinement.run_confined({module!r}, {{}}, print, silent_seconds=600)\n"
    )
    root = Path(confinement.__file__).parents[3]
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    with subprocess.Popen([sys.executable, "-c", code], cwd=root, env={**os.environ, **path}) as parent:
        wait_until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text() != "", 60, "the child")
        parent.send_signal(signal.SIGKILL)
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not is_alive(pid), 30, "the child to end")


def test_many_open_files_are_no_hindrance(child: Callable[[str], str]) -> None:
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)] if _may_open(1300) else []
    try:
        assert run(child("return {}")) == {}
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _may_open(count: int) -> bool:
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] > count


def test_time_passes_for_the_waiting_thread_only(child: Callable[[str], str]) -> None:
    started = time.process_time()
    run(child("time.sleep(1)\nreturn {}"))
    assert time.process_time() - started < 0.5
