"""A filter of system calls for a process that does nothing but compute: no sockets, no programs, no other processes.

It is a program for the kernel's packet filter; sources: linux/seccomp.h, linux/filter.h, seccomp(2), and the
kernel's tables of system calls (x86-64 and arm64).
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

# name: (number on x86-64, number on arm64); -1: does not exist there
_REFUSED: dict[str, tuple[int, int]] = {
    # the network
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "io_uring_setup": (425, 425),
    # other programs and processes
    "execve": (59, 221),
    "execveat": (322, 281),
    "fork": (57, -1),
    "vfork": (58, -1),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438),
    # what the rules on files do not cover
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    # the kernel's wide surfaces
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "unshare": (272, 97),
    "setns": (308, 268),
    "chroot": (161, 51),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_TGKILL, _PRLIMIT64 = (234, 131), (302, 261)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32_CALLS = 0x40000000
_CLONE_THREAD = 0x00010000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|J…|K, BPF_RET|K
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

_Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install() -> bool:
    """Puts the filter on this process, for good; returns whether it is there. It needs `no_new_privs` set before."""
    if platform.system() != "Linux" or platform.machine() not in _ARCHITECTURES:
        return False
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _instructions(platform.machine()))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None)
    return bool(libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program)) == 0)


def _instructions(machine: str) -> Iterator[_Instruction]:
    column, architecture = _ARCHITECTURES[machine]
    refuse = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    yield (_LOAD, 0, 0, _ARCHITECTURE)
    yield (_EQUAL, 1, 0, architecture)
    yield refuse
    yield (_LOAD, 0, 0, _NUMBER)
    if machine == "x86_64":
        yield (_AT_LEAST, 0, 1, _X32_CALLS)
        yield refuse
    for numbers in _REFUSED.values():
        if numbers[column] >= 0:
            yield (_EQUAL, 0, 1, numbers[column])
            yield refuse
    # Its flags lie behind a pointer, which a filter cannot follow; the C library then takes clone.
    yield (_EQUAL, 0, 1, _CLONE3[column])
    yield (_RETURN, 0, 0, _ERROR | errno.ENOSYS)
    yield from _only(_CLONE[column], (_ANY_BIT, 1, 0, _CLONE_THREAD))
    yield from _only(_TGKILL[column], (_EQUAL, 1, 0, os.getpid()))  # abort() needs it
    yield from _only(_PRLIMIT64[column], (_EQUAL, 1, 0, 0))
    yield (_RETURN, 0, 0, _ALLOW)


def _only(number: int, condition: _Instruction) -> Iterator[_Instruction]:
    """Refuses a call unless its first argument meets the condition; what follows is about the number again."""
    yield (_EQUAL, 0, 4, number)
    yield (_LOAD, 0, 0, _FIRST_ARGUMENT)
    yield condition
    yield (_RETURN, 0, 0, _ERROR | errno.EPERM)
    yield (_RETURN, 0, 0, _ALLOW)
