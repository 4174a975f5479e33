"""Where a box and its state lie.

Invariant: a box is read-only at run time; everything the program writes goes to the state folder.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def default_box() -> Path:
    """The box to use when none is named: `WHIS_BOX`, the frozen program's folder, or the assembled one."""
    named = os.environ.get("WHIS_BOX")
    if named:
        return Path(named)
    if getattr(sys, "frozen", False):
        return Path(sys.executable).resolve().parent
    return repository_root() / "build" / "box"


def repository_root() -> Path:
    """Folder that holds the `whis_box` package."""
    return Path(__file__).resolve().parent.parent


def state_dir() -> Path:
    """Folder for caches and logs: `WHIS_STATE`, else the XDG state folder."""
    named = os.environ.get("WHIS_STATE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "whis-box"
