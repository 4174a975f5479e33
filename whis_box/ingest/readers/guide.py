"""Our field guide's files: Markdown with YAML front matter. Markdown without it is plain prose.

Invariant: the text is the body, untouched; front matter that is there must be complete and right.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from datetime import date

import yaml
from pydantic import Field, ValidationError

from whis_box.config import describe_validation
from whis_box.errors import InputError
from whis_box.ingest.readers.documents import read_markdown
from whis_box.ingest.readers.draft import Draft, Item, Limits, RawFile, decode
from whis_box.schemas import Frozen, Tlp


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


def read_guide(file: RawFile, limits: Limits) -> Iterator[Item]:
    """One document.

    Raises: InputError naming file and key when the front matter is there and wrong: somebody meant it.
    """
    text = decode(file.data)[0].replace("\r\n", "\n")
    head, separator, body = text.removeprefix("---\n").partition("\n---\n")
    if not text.startswith("---\n") or not separator or "\nid:" not in f"\n{head}":
        yield from read_markdown(file, limits)
        return
    try:
        header = FrontMatter.model_validate(yaml.safe_load(head))
    except yaml.YAMLError as cause:
        raise InputError(f"{file.name}: the front matter is not valid YAML: {cause}") from None
    except ValidationError as cause:
        raise InputError(describe_validation(f"{file.name}: front matter", cause)) from None
    labels = [f"technique:{one}" for one in header.technique_ids]
    labels += [f"platform:{one}" for one in header.platforms]
    labels += [f"data_source:{one}" for one in header.data_sources]
    yield Draft(
        key=header.id,
        title=header.title,
        text=unicodedata.normalize("NFC", body).strip("\n") + "\n",
        labels=tuple(labels),
        record_id=header.id,
        license=header.license,
        tlp=header.tlp,
    )
