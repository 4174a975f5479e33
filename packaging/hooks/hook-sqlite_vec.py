"""The extension that SQLite loads by path: no import refers to it."""

from pathlib import Path

from PyInstaller.utils.hooks import get_package_paths

_PACKAGE = Path(get_package_paths("sqlite_vec")[1])
binaries = [(str(path), "sqlite_vec") for path in sorted(_PACKAGE.glob("vec0.*"))]
