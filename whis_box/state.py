"""The state folder's own version: what one release wrote there stays readable for the one it replaced.

    STATE/state.json      the version, and the oldest one whose program may read it
    STATE/audit/          chained lines
    STATE/*.sqlite        jobs, rollout and ratings: stores with a version each
    STATE/pseudonym.key   made once

Invariant: a migration only adds. A form that older programs would misread raises `oldest_reader`, and they
refuse the folder instead.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationError

from whis_box.config import describe_validation
from whis_box.durable import Disk, write_file
from whis_box.errors import NotReadyError, VerificationError, storage_error
from whis_box.schemas import Frozen

NOTE_NAME = "state.json"
VERSION = 1
OLDEST_READER = 1


class StateNote(Frozen):
    """state.json."""

    version: int = Field(ge=0)
    """Of the program that wrote here last."""
    oldest_reader: int = Field(ge=0)
    """Programs of an earlier version do not understand what is here."""


def read_note(folder: Path) -> StateNote:
    """What the folder says of itself; version 0 is a folder from before versions, or a new one.

    Raises: NotReadyError if a later program wrote what this one cannot read; VerificationError, StorageError.
    """
    path = folder / NOTE_NAME
    try:
        note = StateNote.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return StateNote(version=0, oldest_reader=0)
    except ValidationError as cause:
        raise VerificationError(describe_validation(str(path), cause)) from None
    except OSError as cause:
        raise storage_error("read", path, cause) from cause
    if note.oldest_reader > VERSION:
        raise NotReadyError(
            f"{folder}: state of version {note.version} needs a program of version {note.oldest_reader} or "
            f"later, this one is {VERSION}; use a newer release, or another folder with WHIS_STATE"
        )
    return note


def write_note(folder: Path, disk: Disk) -> StateNote:
    """Say that this program wrote here; a later version is never taken back.

    Raises: as `read_note`.
    """
    before = read_note(folder)
    if before.version >= VERSION:
        return before
    note = StateNote(version=VERSION, oldest_reader=max(before.oldest_reader, OLDEST_READER))
    write_file(disk, folder / NOTE_NAME, [(note.model_dump_json() + "\n").encode()], 0o600)
    return note
