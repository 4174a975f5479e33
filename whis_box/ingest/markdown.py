"""Our field guide's files to records: Markdown with YAML front matter.

Invariant: a document without a known licence and TLP is refused; the record's text is the body, untouched.
"""

from __future__ import annotations

import hashlib
import unicodedata
from datetime import date
from pathlib import Path

import yaml
from pydantic import Field, ValidationError

from whis_box.config import describe_validation
from whis_box.errors import InputError, storage_error
from whis_box.schemas import Frozen, Record, Source, Tlp

PIPELINE_VERSION = "1"
MAX_DOCUMENT_BYTES = 2_000_000
LICENSES = frozenset({"CC-BY-4.0", "CC0-1.0", "Apache-2.0", "MIT"})


class FrontMatter(Frozen):
    """The header of a field-guide document."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,79}$")
    title: str = Field(min_length=3, max_length=200)
    technique_ids: list[str] = Field(default_factory=list)
    platforms: list[str] = Field(default_factory=list)
    data_sources: list[str] = Field(default_factory=list)
    license: str
    tlp: Tlp
    reviewed: date

    @property
    def labels(self) -> list[str]:
        """What a record carries of it."""
        return [
            *(f"technique:{one}" for one in self.technique_ids),
            *(f"platform:{one}" for one in self.platforms),
            *(f"data_source:{one}" for one in self.data_sources),
        ]


def read_document(path: Path, root: Path) -> Record:
    """One document as a record; `root` is the folder that its `source.uri` is relative to.

    Raises: InputError naming file and key; StorageError.
    """
    try:
        raw = path.read_bytes()
    except OSError as cause:
        raise storage_error("read the document", path, cause) from cause
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise InputError(f"{path}: {len(raw)} bytes is more than {MAX_DOCUMENT_BYTES}; split the document")
    try:
        text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as cause:
        raise InputError(f"{path}: not UTF-8 at byte {cause.start}; save it as UTF-8") from None
    header, body = split_front_matter(str(path), unicodedata.normalize("NFC", text))
    if header.license not in LICENSES:
        raise InputError(
            f"{path}: license {header.license!r} is not one of {sorted(LICENSES)}; it may not be indexed"
        )
    return Record(
        id=header.id,
        source=Source(
            name="whis-box-field-guide",
            uri=path.relative_to(root).as_posix(),
            revision=hashlib.sha256(raw).hexdigest()[:12],
            retrieved_at=f"{header.reviewed.isoformat()}T00:00:00Z",
        ),
        title=header.title,
        text=body,
        labels=header.labels,
        license=header.license,
        tlp=header.tlp,
        sha256_raw=hashlib.sha256(raw).hexdigest(),
        sha256_text=hashlib.sha256(body.encode()).hexdigest(),
        pipeline_version=PIPELINE_VERSION,
    )


def split_front_matter(where: str, text: str) -> tuple[FrontMatter, str]:
    """The header and the body, which ends in one line feed; `where` names the file in errors.

    Raises: InputError.
    """
    head, separator, body = text.removeprefix("---\n").partition("\n---\n")
    if not text.startswith("---\n") or not separator:
        raise InputError(f"{where}: line 1: no front matter; begin the file with `---`, the keys, and `---`")
    try:
        fields = yaml.safe_load(head)
        return FrontMatter.model_validate(fields), body.strip("\n") + "\n"
    except yaml.YAMLError as cause:
        raise InputError(f"{where}: the front matter is not valid YAML: {cause}") from None
    except ValidationError as cause:
        raise InputError(describe_validation(f"{where}: front matter", cause)) from None
