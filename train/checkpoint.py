"""Checkpoints: one safetensors file each, complete or absent, bound to the run they belong to.

Invariant: a run continues only from a checkpoint of the same configuration, base and samples; the newest
whole one is kept until a newer one is whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from whis_box.errors import StorageError, VerificationError
from whis_box.paths import written_beside

log = logging.getLogger("train.checkpoint")
KEEP = 2


def save(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> Path:
    """Write step-NNNNNN.safetensors and drop all but the newest KEEP.

    Raises: StorageError when the disk is full or refuses; older checkpoints stay.
    """
    path = folder / f"step-{step:06d}.safetensors"
    write(path, tensors, state)
    for old in sorted(folder.glob("step-*.safetensors"))[:-KEEP]:
        old.unlink()
    return path


def write(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """One file, renamed into place when it is whole. Raises: StorageError."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    try:
        with written_beside(path) as beside:
            save_file(plain, beside, metadata={"state": json.dumps(state)})
    except SafetensorError as cause:
        raise StorageError(
            f"{path}: cannot write: {cause}; free some space and run the command again"
        ) from None


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of one file.

    Raises: VerificationError when it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as opened:
            state = json.loads((opened.metadata() or {})["state"])
            return {name: opened.get_tensor(name) for name in opened.keys()}, state  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as cause:
        raise VerificationError(f"{path}: not a whole checkpoint ({cause}); delete it") from None


def newest(folder: Path, run: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint of `run`, None when there is none; damaged ones are named and passed over.

    Raises: VerificationError when it belongs to another run.
    """
    for path in sorted(folder.glob("step-*.safetensors"), reverse=True):
        try:
            tensors, state = read(path)
        except VerificationError as cause:
            log.warning("%s", cause)
            continue
        if state["run"] != run:
            raise VerificationError(
                f"{path}: made with another configuration, base or dataset (run {state['run'][:12]}, "
                f"this is {run[:12]}); delete {folder} to start anew, or restore what it was made with"
            )
        return tensors, state
    return None


def digest(facts: Any) -> str:
    """Hex sha256 of anything that is JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
