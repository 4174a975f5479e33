"""The index and the audit log, cut at every operation: old or new, and nothing lost that was acknowledged."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import FAKE_SHA256, HashingEmbedder, write_document

from tests.cut_points import memory_folder, try_every_cut
from tests.faulty_disk import FaultyDisk
from tests.faulty_sqlite import failing_sqlite
from whis_box import audit
from whis_box.audit import AuditLog, tail, verify_log
from whis_box.errors import StorageError
from whis_box.ingest.pipeline import read_folder
from whis_box.knowledge import store, writer
from whis_box.knowledge.chunking import chunk_record, embedding_text
from whis_box.knowledge.store import verify_index
from whis_box.knowledge.writer import IndexWriter
from whis_box.schemas import Record

N_APPENDS = 10


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as folder:
        yield folder


def write_index(path: Path, records: list[Record], disk: FaultyDisk | None = None) -> None:
    embedder: Any = HashingEmbedder()
    with IndexWriter(path, embedder.dim, FAKE_SHA256, disk) as opened:
        for record in records:
            chunked = chunk_record(record, 64, embedder.count_tokens)
            texts = [embedding_text(record.title, one) for one in chunked.chunks]
            spans = [record.text[one.start : one.end] for group in chunked.spans for one in group]
            opened.add(chunked, embedder.embed(texts), embedder.embed(spans))


def test_every_cut_of_an_index_build_leaves_old_or_new(
    guide: Path, fast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's writes count too, and the codes that a large index has beside it."""
    monkeypatch.setattr(writer, "EXACT_ROWS", 2)
    monkeypatch.setattr(store, "EXACT_ROWS", 2)
    old = read_folder(guide)
    write_document(guide, "smb", "SMB", "## What it is\n\nSMB shares files. It listens on port 445.\n")
    new = read_folder(guide)
    start, target = fast / "start", fast / "target"
    start.mkdir()
    write_index(start / "whis.sqlite", old)
    with failing_sqlite() as vfs:

        def work(disk: FaultyDisk) -> None:
            vfs.disk = disk
            try:
                write_index(disk.root / "whis.sqlite", new, disk)
            finally:
                vfs.disk = None

        def check(folder: Path) -> int:
            assert verify_index(folder / "whis.sqlite")["verified"]
            return int(str(verify_index(folder / "whis.sqlite")["n_records"]))

        def again(folder: Path) -> None:
            write_index(folder / "whis.sqlite", new)
            assert check(folder) == len(new)
            assert sorted(one.suffix for one in folder.iterdir()) == [".codes", ".codes", ".sqlite"]

        cuts, seen = try_every_cut(start, target, work, check, again)
    assert seen == {len(old), len(new)}
    print(f"index build: {cuts} cut points")
    assert cuts > 200


def test_no_cut_loses_an_acknowledged_audit_entry(fast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through rotation, the head file and the repair of a torn line."""
    monkeypatch.setattr(audit, "HEAD_INTERVAL_S", 0.0)
    start, target, noted = fast / "start", fast / "target", fast / "noted"
    log = AuditLog(start)
    for n in range(3):
        log.append("ask", "local", f"before-{n}")
    log.close()
    with (start / "audit-000001.ndjson").open("ab") as stream:
        stream.write(b'{"seq": 4, "at"')

    def work(disk: FaultyDisk) -> None:
        handle = os.open(noted, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        try:
            opened = AuditLog(disk.root, 1500, disk)
            for n in range(N_APPENDS):
                with contextlib.suppress(StorageError):
                    os.write(handle, f"{opened.append('ask', 'local', f'now-{n}').mac}\n".encode())
            opened.close()
        finally:
            os.close(handle)

    lost = 0

    def check(folder: Path) -> int:
        nonlocal lost
        AuditLog(folder).close()  # what the next start does
        assert verify_log(folder).problem == ""
        entries = tail(folder, 1000)
        lost += len(set(noted.read_text().split()) - {one.mac for one in entries})
        assert [one.request_id for one in entries[:3]] == ["before-0", "before-1", "before-2"]
        return len(entries)

    cuts, seen = try_every_cut(start, target, work, check, None)
    print(f"audit append: {cuts} cut points, {lost} acknowledged entries lost, {len(seen)} lengths seen")
    assert lost == 0 and cuts > 200
    assert max(seen) == 3 + 1 + N_APPENDS and len(seen) > 5


def test_an_audit_log_that_does_not_sync_is_caught(fast: Path) -> None:
    """The harness can fail: without the sync an acknowledged entry is gone after a power cut."""

    class Careless(FaultyDisk):
        def sync(self, handle: int) -> None:
            self.step("sync", "")

    (fast / "log").mkdir()
    disk = Careless(fast / "log")
    AuditLog(fast / "log", disk=disk).append("ask", "local")
    disk.after_power_cut(fast / "after", None)
    assert not (fast / "after" / "audit-000001.ndjson").read_bytes()


def test_a_failed_append_leaves_room_for_the_next(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    disk = FaultyDisk(tmp_path / "log")
    log = AuditLog(tmp_path / "log", disk=disk)
    log.append("ask", "local", "kept")
    disk.fault, disk.at = "EIO", disk.count + 1
    with pytest.raises(StorageError, match="write the audit log"):
        log.append("ask", "local", "failed")
    log.append("ask", "local", "next")
    log.close()
    assert verify_log(tmp_path / "log").problem == ""
    assert [(one.seq, one.request_id) for one in tail(tmp_path / "log", 9)] == [(1, "kept"), (2, "next")]
