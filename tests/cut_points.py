"""Stopping a piece of work at every operation on the disk, in every way a disk can stop it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tests.faulty_disk import Fault, FaultyDisk, PowerCut
from whis_box.errors import WhisError

Work = Callable[[FaultyDisk], None]
T = TypeVar("T")
FAULTS: list[Fault] = ["EIO", "ENOSPC for good", "power", "SIGKILL"]
POWER_SEEDS = (None, 1)


def try_every_cut(
    start: Path, target: Path, work: Work, check: Callable[[Path], T], again: Callable[[Path], None] | None
) -> tuple[int, set[T]]:
    """`work` on copies of `start`, cut at each operation; the number of cuts, and what `check` then found.

    `again` is run after some of the cuts: doing it again always gets there.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(start, target, symlinks=True)
    n_operations = run_once(work, target, "none", 0).count
    cuts, seen = 0, {check(target)}
    for fault in FAULTS:
        for at in range(1, n_operations + 1):
            shutil.rmtree(target)
            shutil.copytree(start, target, symlinks=True)
            disk = run_once(work, target, fault, at)
            for seed in POWER_SEEDS if fault == "power" else (0,):
                found = target
                if fault == "power":
                    found = target.with_name("after")
                    disk.after_power_cut(found, seed)
                seen.add(check(found))
                cuts += 1
                if again is not None and (at + cuts) % 7 == 0:
                    again(found)
    return cuts, seen


def run_once(work: Work, folder: Path, fault: Fault, at: int) -> FaultyDisk:
    """`work` with one fault; SIGKILL ends a process of its own."""
    disk = FaultyDisk(folder, fault, at)
    if fault == "SIGKILL":
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(WhisError):
                work(disk)
            os._exit(0)
        os.waitpid(pid, 0)
        return disk
    with contextlib.suppress(WhisError, PowerCut):
        work(disk)
    return disk


@contextlib.contextmanager
def memory_folder(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where there is one: thousands of small trees are made and removed."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="whis-faults-") as folder:
        yield Path(folder)
