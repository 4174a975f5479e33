"""What the engine's child may not do: dump its memory, write files, open Internet sockets, start programs.

Invariant: entered once, before the first request; nothing in the child can leave it again.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import platform
import resource
import signal
import struct
import sys

log = logging.getLogger("whis_box.engine.sandbox")

# Source: linux/prctl.h, linux/seccomp.h, linux/filter.h, linux/audit.h
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
LOAD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
OFFSET_NUMBER, OFFSET_ARCH, OFFSET_FIRST_ARGUMENT = 0, 4, 16
AF_UNIX = 1
X32_CALLS = 0x40000000  # a second numbering on x86_64, which nothing here uses
IO_URING_SETUP = 425  # io_uring could open sockets past the filter
MACHINES = {
    "x86_64": (0xC000003E, {"socket": 41, "execve": 59, "execveat": 322, "ptrace": 101}),
    "aarch64": (0xC00000B7, {"socket": 198, "execve": 221, "execveat": 281, "ptrace": 117}),
}


def enter(memory_limit_bytes: int = 0) -> None:
    """Give up what decoding does not need; `memory_limit_bytes` bounds the address space, 0 leaves it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold prompts
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if memory_limit_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_limit_bytes, memory_limit_bytes))
    sys.dont_write_bytecode = True
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # no orphans
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the parent
    if not _forbid_calls():
        log.warning("system calls are not filtered: seccomp is not available on %s", platform.machine())


def _forbid_calls() -> bool:
    """Refuse Internet sockets and new programs; False where seccomp is missing."""
    known = MACHINES.get(platform.machine())
    if known is None or _prctl(PR_SET_NO_NEW_PRIVS, 1) != 0:
        return False
    program = filter_program(*known)
    code = ctypes.create_string_buffer(program)
    header = ctypes.create_string_buffer(struct.pack("@HxxxxxxQ", len(program) // 8, ctypes.addressof(code)))
    return _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header)) == 0


def filter_program(architecture: int, numbers: dict[str, int]) -> bytes:
    """A classic BPF program: sockets other than AF_UNIX, exec and ptrace are refused, the rest is allowed."""
    refused = [numbers["execve"], numbers["execveat"], numbers["ptrace"], IO_URING_SETUP]
    lines = [
        (LOAD, 0, 0, OFFSET_ARCH),
        (JUMP_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, OFFSET_NUMBER),
        (JUMP_AT_LEAST, len(refused) + 5, 0, X32_CALLS),  # to the last line
    ]
    for position, number in enumerate(refused):
        lines.append((JUMP_EQUAL, len(refused) - position + 4, 0, number))
    lines += [
        (JUMP_EQUAL, 1, 0, numbers["socket"]),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, OFFSET_FIRST_ARGUMENT),
        (JUMP_EQUAL, 0, 1, AF_UNIX),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)


def _prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4]]
    return int(ctypes.CDLL(None).prctl(option, *padded))
