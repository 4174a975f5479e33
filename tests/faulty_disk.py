"""A disk that fails at one chosen operation, and that forgets what was never synced when the power goes.

The model behind a power cut: a file's bytes last once the file was synced, a name lasts once its folder was
synced. What was not may be lost, kept or torn, drawn from a seed, or lost altogether. After the cut nothing
reaches the disk any more, whatever the program still tries.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Literal

from whis_box.durable import Disk

Fault = Literal["none", "EIO", "ENOSPC", "EIO for good", "ENOSPC for good", "SIGKILL", "power"]
CHANGING = {
    "create",
    "append",
    "write",
    "truncate",
    "sync",
    "sync_folder",
    "rename",
    "mkdir",
    "symlink",
    "link",
    "remove",
    "rmdir",
}


class PowerCut(BaseException):
    """No handler of the program may run after this."""


class FaultyDisk(Disk):
    """Counts operations and fails the one numbered `at`, from 1; records what a power cut would leave."""

    def __init__(self, root: Path, fault: Fault = "none", at: int = 0) -> None:
        self.root, self.fault, self.at, self.count = root, fault, at, 0
        self.operations: list[str] = []
        self._open: dict[int, Node] = {}
        self._tree = Node.of(root)

    def free_bytes(self, folder: Path) -> int:
        """Plenty; a full disk is a fault of its own."""
        return 1 << 40

    def step(self, name: str, path: object) -> None:
        """One operation is about to happen; it may fail."""
        assert name in CHANGING
        self.count += 1
        self.operations.append(f"{name} {path}")
        lasting = self.fault == "power" or self.fault.endswith("for good")
        for_good = lasting and self.count > self.at > 0
        if self.count != self.at and not for_good:
            return
        if self.fault == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "power":
            raise PowerCut(name)
        if self.fault != "none":
            number = getattr(errno, self.fault.split()[0])
            if number == errno.ENOSPC and name in ("remove", "rmdir", "truncate"):
                return  # a full disk still forgets
            raise OSError(number, os.strerror(number))

    def create(self, path: Path, mode: int = 0o644) -> int:
        self.step("create", path)
        handle = super().create(path, mode)
        folder = self.node(path.parent)
        node = folder.live.get(path.name)
        if node is None:
            node = Node("file")
            folder.change(path.name, node)
        node.cut(0)
        self._open[handle] = node
        return handle

    def append(self, path: Path, mode: int = 0o600) -> int:
        self.step("append", path)
        handle = super().append(path, mode)
        folder = self.node(path.parent)
        if path.name not in folder.live:
            folder.change(path.name, Node("file"))
        self._open[handle] = folder.live[path.name]
        return handle

    def reopen(self, path: Path) -> int:
        handle = super().reopen(path)
        self._open[handle] = self.node(path)
        return handle

    def write(self, handle: int, block: bytes) -> None:
        if self.count + 1 == self.at and self.fault != "none":
            super().write(handle, block[: len(block) // 2])  # a fault in the middle of a write
            self._open[handle].data += bytes(block[: len(block) // 2])
        self.step("write", len(block))
        super().write(handle, block)
        self._open[handle].data += bytes(block)

    def truncate(self, handle: int, size_bytes: int) -> None:
        self.step("truncate", size_bytes)
        super().truncate(handle, size_bytes)
        self._open[handle].cut(size_bytes)

    def sync(self, handle: int) -> None:
        self.step("sync", "")
        self._open[handle].sync()

    def sync_folder(self, folder: Path) -> None:
        self.step("sync_folder", folder)
        self.node(folder).settle()

    def rename(self, old: Path, new: Path) -> None:
        assert old.parent == new.parent, "only renames inside one folder are one step"
        self.step("rename", new)
        super().rename(old, new)
        self.node(old.parent).move(old.name, new.name)

    def mkdir(self, folder: Path, mode: int = 0o777) -> None:
        self.step("mkdir", folder)
        super().mkdir(folder, mode)
        self.node(folder.parent).change(folder.name, Node("folder"))

    def symlink(self, target: str, link: Path) -> None:
        self.step("symlink", link)
        super().symlink(target, link)
        self.node(link.parent).change(link.name, Node("link", target=target))

    def link(self, old: Path, new: Path) -> None:
        self.step("link", new)
        super().link(old, new)
        self.node(new.parent).change(new.name, self.node(old))

    def remove(self, path: Path) -> None:
        self.step("remove", path)
        super().remove(path)
        self.node(path.parent).change(path.name, None)

    def rmdir(self, folder: Path) -> None:
        self.step("rmdir", folder)
        super().rmdir(folder)
        self.node(folder.parent).change(folder.name, None)

    def after_power_cut(self, target: Path, seed: int | None) -> None:
        """Write what the disk holds after the cut into `target`; seed None loses all that may be lost."""
        shutil.rmtree(target, ignore_errors=True)
        self._tree.write(target, random.Random(seed) if seed is not None else None)

    def node(self, path: Path) -> Node:
        """What the model knows of one path."""
        node = self._tree
        for part in path.relative_to(self.root).parts:
            node = node.live[part]
        return node


class Node:
    """A file, folder or link: as the program sees it, and as much of it as is safe."""

    def __init__(self, kind: str, data: bytes = b"", target: str = "") -> None:
        self.kind, self.data, self.target = kind, data, target
        self.safe: bytes | None = None
        self.untouched = 0  # bytes at the start that nothing changed since the last sync
        self.live: dict[str, Node] = {}
        self.kept: dict[str, Node] = {}
        self.waiting: list[dict[str, Node | None]] = []

    @classmethod
    def of(cls, path: Path) -> Node:
        """Everything that is there at the start is safe."""
        if path.is_symlink():
            return cls("link", target=os.readlink(path))
        if path.is_file():
            node = cls("file", path.read_bytes())
            node.sync()
            return node
        node = cls("folder")
        node.live = {one.name: cls.of(one) for one in path.iterdir()}
        node.kept = dict(node.live)
        return node

    def sync(self) -> None:
        self.safe, self.untouched = self.data, len(self.data)

    def cut(self, size_bytes: int) -> None:
        self.data, self.untouched = self.data[:size_bytes], min(self.untouched, size_bytes)

    def put(self, offset: int, block: bytes) -> None:
        self.data = self.data[:offset].ljust(offset, b"\0") + block + self.data[offset + len(block) :]
        self.untouched = min(self.untouched, offset)

    def change(self, name: str, node: Node | None) -> None:
        self._apply(self.live, {name: node})
        self.waiting.append({name: node})

    def move(self, old: str, new: str) -> None:
        step: dict[str, Node | None] = {old: None, new: self.live[old]}
        self._apply(self.live, step)
        self.waiting.append(step)

    def settle(self) -> None:
        self.kept, self.waiting = dict(self.live), []

    @staticmethod
    def _apply(names: dict[str, Node], step: dict[str, Node | None]) -> None:
        for name, node in step.items():
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node

    def write(self, path: Path, chance: random.Random | None) -> None:
        if self.kind == "link":
            path.symlink_to(self.target)
        elif self.kind == "file":
            path.write_bytes(self._surviving_bytes(chance))
        else:
            path.mkdir()
            names = dict(self.kept)
            for step in self.waiting:
                if chance is not None and chance.random() < 0.5:
                    self._apply(names, step)
            for name, node in names.items():
                node.write(path / name, chance)

    def _surviving_bytes(self, chance: random.Random | None) -> bytes:
        before = self.safe or b""
        if chance is None or self.data == before:
            return before
        torn = self.data[: chance.randrange(min(self.untouched, len(self.data)), len(self.data) + 1)]
        holes = torn + bytes(len(self.data) - len(torn))
        return chance.choice([before, before[: self.untouched], torn, holes, self.data])
