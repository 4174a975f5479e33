"""Shared fixtures: no socket but loopback, a hashing embedder, a tiny index, the real box."""

from __future__ import annotations

import hashlib
import ipaddress
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.server_box import FakeBox, Running, serving
from whis_box.config import RagConfig
from whis_box.ingest.pipeline import build_index, read_folder
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.terms import terms
from whis_box.paths import repository_root

FAKE_SHA256 = "f" * 64

DOCUMENT = """---
id: {id}
title: "{title}"
technique_ids: [{techniques}]
platforms: [windows]
data_sources: ["Windows Security log"]
license: CC-BY-4.0
tlp: {tlp}
reviewed: 2026-11-23
---

{body}
"""


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection that leaves the machine fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not ipaddress.ip_address(address[0]).is_loopback:
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


class HashingEmbedder:
    """Stands in for the real embedder: words hashed into 64 dimensions, so shared words give similarity."""

    dim = 64

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, 64)."""
        return np.array([self._vector(text) for text in texts], dtype=np.float32).reshape(-1, self.dim)

    def _vector(self, text: str) -> NDArray[np.float32]:
        vector = np.full(self.dim, 1e-3, dtype=np.float32)
        for term in terms(text):
            vector[int(hashlib.sha256(term.encode()).hexdigest(), 16) % self.dim] += 1
        return vector / np.linalg.norm(vector)

    def count_tokens(self, text: str) -> int:
        """Words."""
        return len(text.split())


def write_document(
    folder: Path, name: str, title: str, body: str, techniques: str = "", tlp: str = "clear"
) -> Path:
    """A field-guide document in `folder`."""
    path = folder / f"{name}.md"
    path.write_text(
        DOCUMENT.format(id=name, title=title, techniques=techniques, tlp=tlp, body=body), encoding="utf-8"
    )
    return path


@pytest.fixture
def guide(tmp_path: Path) -> Path:
    """A folder with three small documents."""
    folder = tmp_path / "raw"
    folder.mkdir()
    write_document(
        folder,
        "win-1102",
        "Windows event 1102: the audit log was cleared",
        "## What it is\n\nEvent 1102 is written to the Security log when the audit log is cleared. "
        "Event 104 is written to the System log when another log is cleared.\n\n"
        "## First five minutes\n\n1. Find the account in the `SubjectUserName` field of event 1102.\n",
        techniques="T1070.001",
    )
    write_document(
        folder,
        "lsass",
        "T1003.001 LSASS Memory",
        "## What it is\n\nT1003.001 means that an attacker reads passwords from the memory of lsass.exe. "
        "The library comsvcs.dll can dump lsass.exe when rundll32.exe calls its MiniDump function.\n\n"
        "## First five minutes\n\n1. Isolate the host that dumped lsass.exe.\n\n"
        "## False positives\n\nAntivirus agents open lsass.exe with read access many times a day.\n",
        techniques="T1003.001",
    )
    write_document(
        folder,
        "log4shell",
        "CVE-2021-44228 Log4Shell",
        "## What it is\n\nCVE-2021-44228 lets an attacker run code through a `${jndi:ldap://x}` string.\n",
        techniques="T1190",
        tlp="amber",
    )
    return folder


@pytest.fixture
def retriever(guide: Path, tmp_path: Path) -> Iterator[Retriever]:
    """A retriever over the three documents, with the hashing embedder."""
    embedder: Any = HashingEmbedder()
    rag = RagConfig()
    path = tmp_path / "index.sqlite"
    build_index(read_folder(guide), path, embedder, FAKE_SHA256, rag, lambda *_: None, 3)
    opened = Retriever(path, embedder, FAKE_SHA256, rag.retriever)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def box() -> Path:
    """The assembled default box, with the real models."""
    folder = repository_root() / "build" / "box"
    assert (folder / "manifest.json").is_file(), (
        "the end-to-end tests need build/box: run `make test` or `make box`"
    )
    return folder


@pytest.fixture
def fake_box(retriever: Retriever, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeBox:
    """A box for `serving`, with a state folder of its own."""
    monkeypatch.setenv("WHIS_STATE", str(tmp_path / "state"))
    return FakeBox(retriever.path, HashingEmbedder(), retriever)


@pytest.fixture
def server(fake_box: FakeBox) -> Iterator[Running]:
    """A running server over `fake_box`."""
    with serving(fake_box) as running:
        yield running
