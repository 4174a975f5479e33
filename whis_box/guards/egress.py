"""Proof of silence: which sockets a process has open, read from the kernel, not from our own word.

Invariant: a process that cannot be examined is an error, never a pass.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whis_box.errors import NotReadyError, VerificationError

# Source: linux/net/tcp_states.h
LISTENING = "0A"
TABLES = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6", "packet")


@dataclass(frozen=True)
class Socket:
    """An Internet or packet socket; `local` and `remote` as the kernel writes them, in hex."""

    protocol: str
    local: str
    remote: str
    listening: bool

    def __str__(self) -> str:
        return f"{self.protocol} {_readable(self.local)} -> {_readable(self.remote)}"


def sockets_of(pid: int | str = "self") -> list[Socket]:
    """The network sockets that process `pid` holds.

    Raises: NotReadyError where /proc does not show them.
    """
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in _descriptors(pid)]
        mine = {link[8:-1] for link in links if link.startswith("socket:[")}
        return [one for inode, one in _table(pid) if inode in mine]
    except OSError as cause:
        remedy = "run as the same user on a system with /proc"
        raise NotReadyError(f"/proc/{pid}: sockets not measured ({cause.strerror}); {remedy}") from cause


def check_silence(pid: int | str = "self", listeners: frozenset[int] = frozenset()) -> int:
    """Number of the listening sockets on the allowed ports; others on these ports are their clients.

    Raises: VerificationError naming any other socket; NotReadyError.
    """
    strange = [one for one in sockets_of(pid) if _port(one.local) not in listeners]
    if strange:
        shown = ", ".join(map(str, strange[:3]))
        raise VerificationError(
            f"process {pid} holds {len(strange)} sockets beside its listener ({shown}); "
            "stop it and report this"
        )
    return sum(one.listening for one in sockets_of(pid))


def _descriptors(pid: int | str) -> Iterator[str]:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if os.path.islink(f"/proc/{pid}/fd/{fd}"):  # the listing's own descriptor is gone by now
            yield fd


def _table(pid: int | str) -> Iterator[tuple[str, Socket]]:
    """(inode, socket) of every socket in the process's network namespace."""
    for name in TABLES:
        path = Path(f"/proc/{pid}/net/{name}")
        if not path.exists():
            continue
        for row in path.read_text().splitlines()[1:]:
            fields = row.split()
            if name == "packet":
                yield fields[8], Socket(name, "", "", False)
            else:
                yield fields[9], Socket(name, fields[1], fields[2], fields[3] == LISTENING)


def _readable(address: str) -> str:
    """`0100007F:0016` as `127.0.0.1:22`: each 32-bit word is in the host's byte order."""
    words, _, port = address.rpartition(":")
    if not words:
        return address
    packed = b"".join(
        int(words[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(words), 8)
    )
    ip = ipaddress.ip_address(packed)
    return f"[{ip}]:{int(port, 16)}" if ip.version == 6 else f"{ip}:{int(port, 16)}"


def _port(local: str) -> int:
    return int(local.rpartition(":")[2] or "0", 16) if local else -1
