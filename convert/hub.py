"""Model hubs, on a connected build host only: pin a model once, then fetch exactly that.

Invariant: nothing is fetched without a recorded revision and hash; `pin` prints them for a person to review
and put into the lock, and changes nothing.
"""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path
from typing import Any

from convert.lock import HubSource, ModelEntry, ModelFile
from whis_box.errors import InputError, NotReadyError


def pin(entry: ModelEntry, source: HubSource, api: Any = None) -> str:
    """The lines that pin an entry: the revision of today and the hash of each wanted file, as YAML.

    Small files carry no sha256 at the hub and are downloaded to be hashed.
    Raises: NotReadyError without the hub; InputError if the model holds none of the wanted files.
    """
    import hashlib

    opened = api or _api()
    try:
        info = opened.model_info(source.id, revision=source.revision or "main", files_metadata=True)
        wanted = [one for one in info.siblings if _is_wanted(one.rfilename, source)]
        lines = [f"revision: {info.sha}", "files:"]
        for one in sorted(wanted, key=lambda file: str(file.rfilename)):
            digest = one.lfs.sha256 if one.lfs else None
            if digest is None:
                path = opened.hf_hub_download(source.id, one.rfilename, revision=info.sha)
                digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            lines += [f"  - member: {one.rfilename}", f"    name: {one.rfilename}", f"    sha256: {digest}"]
    except OSError as cause:  # the hub's errors are OSErrors
        raise _out_of_reach(entry, source, cause) from None
    if not wanted:
        raise InputError(f"{source.id}: holds no file like {', '.join(source.patterns)}")
    return "\n".join(lines)


def download(entry: ModelEntry, source: HubSource, wanted: ModelFile, api: Any = None) -> Path:
    """One file at the recorded revision, in the hub's cache; the caller verifies it.

    Raises: NotReadyError.
    """
    try:
        return Path((api or _api()).hf_hub_download(source.id, wanted.member, revision=source.revision))
    except OSError as cause:
        raise _out_of_reach(entry, source, cause) from None


def _is_wanted(name: str, source: HubSource) -> bool:
    return "/" not in name and any(fnmatch.fnmatch(name, pattern) for pattern in source.patterns)


def _api() -> Any:
    os.environ.pop("HF_HUB_OFFLINE", None)  # this command is the one that may go out
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import HfApi

    return HfApi()


def _out_of_reach(entry: ModelEntry, source: HubSource, cause: OSError) -> NotReadyError:
    return NotReadyError(
        f"{entry.name}: {source.id} cannot be fetched ({type(cause).__name__}: {str(cause)[:200]}); this "
        "needs a connected build host, and a token in HF_TOKEN for gated models; or copy the files there "
        "yourself and give the entry a folder source"
    )
