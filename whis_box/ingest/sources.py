"""data/sources.yaml: where documents come from, their licence, and what they may be used for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from whis_box.config import Section, load_config
from whis_box.errors import InputError
from whis_box.ingest.sanitize.policy import PolicyConfig
from whis_box.schemas import Tlp

Use = Literal["index", "train"]


class SourceConfig(Section):
    """One source."""

    title: str
    """What people call it."""
    license: str
    """SPDX id or LicenseRef."""
    tlp: Tlp
    """Who may see it."""
    uri: str
    """Where it is published."""
    fetch: str
    """How to get it on the build host."""
    uses: list[Use] = Field(min_length=1)
    """What it may be used for."""
    own_ids: bool = False
    """Whether its documents' ids are used without the source's name in front."""
    notice: str = ""
    """What its licence asks to be said."""


class SourcesConfig(Section):
    """data/sources.yaml."""

    sources: dict[str, SourceConfig]
    """By name."""


def find_source(path: Path, name: str, policy: PolicyConfig) -> SourceConfig:
    """The named source.

    Raises: InputError if it is not listed or its licence is not allowed; ConfigError.
    """
    listed = load_config(path, SourcesConfig).sources
    if name not in listed:
        raise InputError(
            f"{path}: no source {name!r}; name one of {', '.join(sorted(listed))}, or add it there"
        )
    source = listed[name]
    if source.license not in policy.licenses:
        raise InputError(
            f"{path}: source {name!r} has the licence {source.license!r}; the policy does not allow it"
        )
    return source
