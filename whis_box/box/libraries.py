"""The Python distributions a program is made of, with their licences.

Invariant: a frozen program is described by the list that its own build wrote; without one, by what Whis Box
requires and what that requires in turn.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from whis_box.errors import NotReadyError
from whis_box.paths import read_text
from whis_box.schemas import Frozen

LIBRARIES_NAME = "libraries.json"
# Read by nothing in a running box: libllama's binding is imported without its high-level half.
NOT_NEEDED = {"llama-cpp-python": {"jinja2", "diskcache"}}
_CLASSIFIER = "License :: OSI Approved :: "
# Free texts that mean one SPDX licence and nothing else.
_SPDX = {
    "MIT License": "MIT",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
}


class Library(Frozen):
    """One distribution; `license` is an SPDX expression where its author gave one."""

    name: str
    version: str
    license: str
    homepage: str = ""
    purl: str = ""
    """Its address as a package, where it is not one of the Python index."""


def frozen_libraries(program: Path) -> list[Library]:
    """What the frozen program holds, as its build wrote it down.

    Raises: NotReadyError, StorageError.
    """
    raw = json.loads(read_text(program / "_internal" / LIBRARIES_NAME, "run `make frozen`"))
    return [Library.model_validate(one) for one in raw]


def required_libraries(root: str = "whis-box") -> list[Library]:
    """`root`'s requirements and theirs, without itself.

    Raises: NotReadyError naming one that is not installed.
    """
    found: dict[str, Library] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop()
        for required in _requirements(name):
            if required not in found:
                found[required] = describe_library(required)
                waiting.append(required)
    return sorted(found.values(), key=lambda one: one.name)


def describe_library(name: str) -> Library:
    """One installed distribution.

    Raises: NotReadyError if it is not installed.
    """
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        raise NotReadyError(f"{name} is not installed; run `make demo`") from None
    addresses = [text.split(",", 1)[1].strip() for text in about.get_all("Project-URL") or []]
    return Library(
        name=normalized(about["Name"]),
        version=about["Version"],
        license=_license(about),
        homepage=about["Home-page"] or (addresses[0] if addresses else ""),
    )


def license_texts(names: list[str]) -> str:
    """The licence files of the distributions, one after another."""
    parts = []
    for name in names:
        files = [path for path in metadata.files(name) or [] if _is_license(path.name)]
        for path in sorted(files, key=str):
            located = Path(str(path.locate()))
            if located.is_file():
                text = located.read_text(encoding="utf-8", errors="replace").strip()
                parts.append(f"===== {name}: {path.name} =====\n\n{text}\n")
    return "\n".join(parts)


def normalized(name: str) -> str:
    """Source: PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _requirements(name: str) -> Iterator[str]:
    try:
        lines = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        raise NotReadyError(f"{name} is not installed; run `make demo`") from None
    for line in lines:
        requirement = Requirement(line)
        required = normalized(requirement.name)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and required not in NOT_NEEDED.get(normalized(name), ()):
            yield required


def _license(about: metadata.PackageMetadata) -> str:
    if about["License-Expression"]:
        return str(about["License-Expression"])
    stated = (about["License"] or "").strip()
    if stated and "\n" not in stated and len(stated) <= 60:
        return _SPDX.get(stated, stated)
    classified = [one.removeprefix(_CLASSIFIER) for one in about.get_all("Classifier") or []]
    named = [one for one in classified if "::" not in one and one.endswith("License")]
    return " AND ".join(_SPDX.get(one, one) for one in named) or "not stated"


def _is_license(name: str) -> bool:
    return name.lower().startswith(("license", "licence", "copying", "notice"))
