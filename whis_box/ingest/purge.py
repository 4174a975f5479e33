"""Erasing one record so that its bytes are gone: from the corpus, and from an index that is built anew.

Invariant: the claim is checked: after a purge the files are searched for the record's own passages.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from whis_box.errors import InputError, VerificationError
from whis_box.ingest.corpus import open_existing
from whis_box.paths import file_bytes_hold
from whis_box.schemas import Record, written_now

PASSAGE_CHARS = 48
MAX_PASSAGES = 200


@dataclass(frozen=True)
class Erasure:
    """What was searched for after a purge; nothing of it may be found."""

    record_id: str
    passages: tuple[bytes, ...]

    def prove(self, paths: list[Path]) -> dict[str, int]:
        """Bytes searched by file name.

        Raises: VerificationError if a passage is still there.
        """
        searched = {}
        for path in paths:
            if not path.exists():
                continue
            if found := file_bytes_hold(path, self.passages):
                raise VerificationError(
                    f"{path}: still holds {len(found)} of {len(self.passages)} passages of {self.record_id}; "
                    "build the index again and purge once more"
                )
            searched[path.name] = path.stat().st_size
        return searched


def purge_record(corpus_path: Path, record_id: str) -> Erasure:
    """Erase the record from the corpus; the index must be built again and the result proved.

    Raises: NotReadyError, StorageError; InputError if there is no such record.
    """
    with open_existing(corpus_path) as corpus:
        record = corpus.record(record_id)
        if record is None:
            raise InputError(f"{corpus_path}: no record {record_id!r}; `whis search` shows record ids")
        others = "\n".join(one.text for one in corpus.records() if one.id != record_id)
        corpus.purge(record_id, written_now())
    return Erasure(record_id, _own_passages(record, others))


def _own_passages(record: Record, others: str) -> tuple[bytes, ...]:
    """Pieces of the record's lines that no other record holds."""
    pieces = []
    for line in record.text.split("\n"):
        plain = line.strip()
        if len(plain) >= PASSAGE_CHARS and '"' not in plain and "\\" not in plain:
            piece = plain[:PASSAGE_CHARS]
            if piece not in others:
                pieces.append(piece.encode())
    return tuple(pieces[:MAX_PASSAGES])
