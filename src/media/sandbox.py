"""What a decoder process gives up before it sees a stranger's bytes. Linux has all of it, others less; it is told.

- **memory, files it could write, open descriptors, core dumps**: limits of the system;
- **network, programs, other processes**: a filter of system calls (`seccomp`), else a network namespace of its own;
- **files**: Landlock leaves what the interpreter and its libraries are read from, and fonts; nothing to write.

Landlock's numbers: linux/landlock.h.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from src.core.sources.confinement import limit_files, limit_memory
from src.media import seccomp

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION_ASKED, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# Version of Landlock → the rights that it knows; all of them are taken away.
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/fonts", "/usr/local/share/fonts", "/etc/ld.so.cache")
_OPEN_FILES = 64


def end_with_parent(parent: int) -> None:
    """Has the kernel end this process when its parent ends; ends it now if that has happened already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def confine(readable: Iterable[Path], memory: int) -> dict[str, str]:
    """Confines this process for good; returns what holds: `memory`, `network` and `files` with the means, or `open`.

    `readable`: folders from which modules are imported. `memory`: bytes above what it has now.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    limit_memory(memory)
    limit_files(memory)
    holds = {"memory": "rlimit" if sys.platform == "linux" else "open", "network": "open", "files": "open"}
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if _only_read([*readable, *map(Path, {sys.prefix, sys.base_prefix, *_SYSTEM})]):
            holds["files"] = "landlock"
        holds["network"] = "seccomp" if seccomp.install() else "namespace" if _own_network() else "open"
    return holds


def limit_cpu(seconds: float) -> None:
    """Lets this process compute for so many seconds more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _own_network() -> bool:
    libc = ctypes.CDLL(None)
    return bool(libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def _only_read(paths: Sequence[Path]) -> bool:
    libc = ctypes.CDLL(None)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_ASKED)
    if version < 1:
        return False
    rights = _RIGHTS[max(known for known in _RIGHTS if known <= version)]
    ruleset = libc.syscall(_CREATE_RULESET, struct.pack("=Q", rights), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    try:
        for path in paths:
            _allow(libc, ruleset, path)
        return bool(libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = _READ_FILE | _READ_DIR if path.is_dir() else _READ_FILE
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", allowed, descriptor), 0)
    finally:
        os.close(descriptor)
