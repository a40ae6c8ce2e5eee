"""What a decoder process gives up: the filter of system calls, read as the kernel reads it, and what holds without."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from src.media import seccomp

ROOT = Path(__file__).resolve().parents[3]
ALLOWED = 0x7FFF0000
REFUSED = 0x00050000 | errno.EPERM
ABSENT = 0x00050000 | errno.ENOSYS
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# name: numbers on both
HARMLESS = {"read": (0, 63), "mmap": (9, 222), "futex": (202, 98), "openat": (257, 56), "memfd_create": (319, 279)}


def verdict(machine: str, number: int, first: int = 0, architecture: int | None = None) -> int:
    """Returns what the filter says to a call, by the rules of the kernel's packet filter."""
    program = list(seccomp._instructions(machine))
    values = {0: number, 4: architecture or ARCHITECTURES[machine], 16: first}
    held, place = 0, 0
    while True:
        code, if_true, if_false, value = program[place]
        place += 1
        if code == 0x06:
            return value
        if code == 0x20:
            held = values[value]
            continue
        met = {0x15: held == value, 0x35: held >= value, 0x45: bool(held & value)}[code]
        place += if_true if met else if_false


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_the_filter_refuses_what_it_names_and_nothing_that_decoding_needs(machine: str, column: int) -> None:
    for name, numbers in seccomp._REFUSED.items():
        if numbers[column] >= 0:
            assert verdict(machine, numbers[column]) == REFUSED, name
    for name, numbers in HARMLESS.items():
        assert verdict(machine, numbers[column]) == ALLOWED, name


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_calls_that_depend_on_what_they_are_for_are_looked_at(machine: str, column: int) -> None:
    clone, tgkill, limit = seccomp._CLONE[column], seccomp._TGKILL[column], seccomp._PRLIMIT64[column]
    assert verdict(machine, clone, 0x3D0F00) == ALLOWED  # a thread
    assert verdict(machine, clone, 17) == REFUSED  # a process
    assert verdict(machine, seccomp._CLONE3[column]) == ABSENT
    assert verdict(machine, tgkill, os.getpid()) == ALLOWED
    assert verdict(machine, tgkill, os.getppid()) == REFUSED
    assert verdict(machine, limit, 0) == ALLOWED
    assert verdict(machine, limit, os.getppid()) == REFUSED


def test_calls_of_another_architecture_are_refused() -> None:
    assert verdict("x86_64", 0, architecture=0x40000003) == REFUSED  # i386
    assert verdict("x86_64", 0x40000000 | 41) == REFUSED  # x32


CONFINED = """
import json, os, socket
from pathlib import Path
from src.media import sandbox, seccomp
if {without}:
    seccomp.install = lambda: False
holds = sandbox.confine([Path("src").resolve()], 256 << 20)
found = dict(holds)
def attempt(name, work):
    try:
        work()
        found[name] = "allowed"
    except (OSError, MemoryError) as exc:
        found[name] = type(exc).__name__
attempt("connect", lambda: socket.create_connection(("127.0.0.1", {port}), 5).close())
attempt("secret", lambda: open("/etc/passwd").read())
attempt("module", lambda: open("src/main.py").read())
attempt("huge", lambda: bytearray(400 << 20))
attempt("usual", lambda: bytearray(100 << 20))
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what confines a decoder process is Linux's")
@pytest.mark.parametrize("without", [False, True])
def test_a_confined_process_reaches_nothing_whichever_means_holds(without: bool) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        script = CONFINED.format(without=without, port=server.getsockname()[1])
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    if found["network"] == "open":
        pytest.skip("this system allows neither means")
    assert found["network"] == ("namespace" if without else "seccomp")
    assert found["connect"] != "allowed"
    assert found["huge"] == "MemoryError"
    assert found["usual"] == "allowed"
    if found["files"] == "landlock":
        assert found["secret"] == "PermissionError"
    assert found["module"] == "allowed"
