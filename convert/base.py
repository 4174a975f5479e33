"""A base model as the GGUF a box carries: from a Hugging Face folder, or from another GGUF.

    python -m convert.base SOURCE --out FILE [--quant Q4_0] [--imatrix FILE]

A folder goes through llama.cpp's own converter to f16, then libllama quantizes; a GGUF is quantized again.
Both work in children: an assertion in them must not take the caller along.
Invariant: the output appears under its name only when it is whole and its header reads.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from convert import upstream
from convert.quantize import FILE_TYPES
from whis_box.engine.gguf_header import read_header
from whis_box.errors import EngineError, InputError, NotReadyError, WhisError
from whis_box.paths import file_sha256, written_beside


def main() -> int:
    """Convert one base."""
    parser = argparse.ArgumentParser(prog="convert.base", description="a base model as GGUF")
    parser.add_argument("source", type=Path, help="a Hugging Face folder or a GGUF")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quant", choices=sorted(FILE_TYPES), default="F16")
    parser.add_argument("--imatrix", type=Path, help="what convert.imatrix wrote")
    options = parser.parse_args()
    try:
        make(options.source, options.out, options.quant, options.imatrix)
    except WhisError as error:
        print(f"convert.base: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out} {options.out.stat().st_size} bytes {file_sha256(options.out)}")
    return 0


def make(source: Path, out: Path, quant: str = "F16", imatrix: Path | None = None) -> None:
    """Write `out`.

    Raises: NotReadyError if `source` is missing; InputError if it is neither a model folder nor a GGUF;
    EngineError with the child's last words; VerificationError; StorageError.
    """
    if not source.exists():
        raise NotReadyError(f"{source}: missing; `python -m convert.fetch NAME` gets a model of the lock")
    with tempfile.TemporaryDirectory() as scratch, written_beside(out) as beside:
        if source.is_dir():
            if not (source / "config.json").is_file():
                raise InputError(f"{source}: holds no config.json; name a Hugging Face model folder")
            plain = Path(scratch) / "f16.gguf"
            upstream.run("convert_hf_to_gguf.py", [str(source), "--outfile", str(plain), "--outtype", "f16"])
        else:
            plain = source
            read_header(plain)
        if source.is_dir() and quant == "F16":
            shutil.copyfile(plain, beside)
        else:
            quantize(plain, beside, quant, imatrix)
        read_header(beside)


def quantize(source: Path, target: Path, quant: str, imatrix: Path | None = None) -> None:
    """One GGUF as another, through libllama in a child.

    Raises: EngineError with libllama's last words.
    """
    command = [sys.executable, "-m", "convert.quantize", "--child", str(source), str(target), quant]
    command += ["--imatrix", str(imatrix)] if imatrix else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last = "; ".join(done.stderr.strip().splitlines()[-3:])
        raise EngineError(f"{source}: libllama could not quantize it to {quant} ({done.returncode}): {last}")


if __name__ == "__main__":
    sys.exit(main())
