"""Fuzz what reads a medium before it is trusted: manifest, pack, root, signature, GGUF and SQLite headers.

    python -m tests.fuzz.parsers -runs=10000000 -max_len=4096 CORPUS_FOLDER

Each input goes to the one parser that its first byte names. A parser may refuse with VerificationError or
InputError; anything else, or more than a few hundred MB, is a finding. libFuzzer prints the executions.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["whis_box", "json", "pydantic"]):
    from whis_box.box import minisign, trust
    from whis_box.box.headers import _sqlite_problem
    from whis_box.box.manifest import parse_manifest
    from whis_box.box.minisign import parse_public_key
    from whis_box.box.packs import Pack
    from whis_box.engine import gguf_header
    from whis_box.errors import InputError, VerificationError

from pydantic import ValidationError

WHERE = Path("fuzz.minisig")
KEY = minisign.create_key()


def manifest(raw: bytes) -> None:
    parse_manifest(raw, WHERE)


def pack(raw: bytes) -> None:
    Pack.model_validate_json(raw, strict=True)


def root(raw: bytes) -> None:
    trust.parse_root(raw, WHERE)


def signature(raw: bytes) -> None:
    minisign.verify(b"data", raw, [KEY.public], WHERE)


def public_key(raw: bytes) -> None:
    parse_public_key(raw.decode("utf-8", "replace"), "fuzz")


def gguf(raw: bytes) -> None:
    reader = gguf_header._read(io.BytesIO(raw), Path("/dev/null"))
    assert reader.n_tensors <= gguf_header.MAX_TENSORS


def sqlite(raw: bytes) -> None:
    assert isinstance(_sqlite_problem(raw[:100], len(raw)), str)


TARGETS = (manifest, pack, root, signature, public_key, gguf, sqlite)


def one_input(data: bytes) -> None:
    """Called by the fuzzer; only a refusal may come out."""
    if not data:
        return
    try:
        TARGETS[data[0] % len(TARGETS)](data[1:])
    except (VerificationError, InputError, ValidationError):
        return


def write_seeds(folder: Path) -> None:
    """Sound inputs to start from."""
    from tests.small_release import gguf as small_gguf
    from tests.small_release import new_builder, write_first_root, write_release

    builder = new_builder()
    write_release(folder / "box", 1, builder.release_key)
    root_bytes = write_first_root(folder / "box" / "trust", builder)
    seeds = [
        (folder / "box" / "manifest.json").read_bytes(),
        b'{"format_version":1,"base_sequence":1,"base_manifest":"' + b"a" * 64 + b'","result_manifest":"'
        + b"b" * 64 + b'","payloads":[]}',
        root_bytes,
        (folder / "box" / "manifest.json.minisig").read_bytes(),
        builder.release_key.public.text().encode(),
        small_gguf(),
        (folder / "box" / "index" / "whis.sqlite").read_bytes()[:100],
    ]  # fmt: skip
    for number, seed in enumerate(seeds):
        (folder / f"seed-{number}").write_bytes(bytes([number]) + seed)


if __name__ == "__main__":
    folders = [Path(one) for one in sys.argv[1:] if not one.startswith("-")]
    if folders and not any(folders[0].iterdir()):
        write_seeds(folders[0])
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
