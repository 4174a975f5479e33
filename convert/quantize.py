"""Re-quantize the base GGUF for this class of machine, through libllama.

    python -m convert.quantize [NAME]          writes build/models/base.gguf

libllama works in a child process: an assertion in it must not take the caller along.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from convert.fetch import fetch
from convert.lock import ModelEntry, read_lock
from convert.products import BUILD_DIR, make_product
from whis_box.engine import cpu, native
from whis_box.engine.gguf_header import read_header
from whis_box.errors import EngineError, WhisError
from whis_box.paths import file_sha256, written_beside

CODE_VERSION = "1"
OUTPUT = BUILD_DIR / "models" / "base.gguf"
FILE_TYPES = {
    "F16": "LLAMA_FTYPE_MOSTLY_F16",
    "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
    "Q4_1": "LLAMA_FTYPE_MOSTLY_Q4_1",
    "Q4_K_M": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
    "Q5_K_M": "LLAMA_FTYPE_MOSTLY_Q5_K_M",
    "Q6_K": "LLAMA_FTYPE_MOSTLY_Q6_K",
    "Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
}


def main() -> int:
    """Quantize the default base, or the named one."""
    parser = argparse.ArgumentParser(description="re-quantize the base model")
    parser.add_argument("name", nargs="?", help="a base of configs/models.lock.yaml")
    parser.add_argument("--child", nargs=3, metavar=("SOURCE", "TARGET", "TYPE"), help=argparse.SUPPRESS)
    parser.add_argument("--imatrix", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        source, target, file_type = options.child
        return quantize_here(Path(source), Path(target), file_type, options.imatrix)
    try:
        lock = read_lock()
        made = make_base(lock.entry(options.name or lock.default_base))
    except WhisError as error:
        print(f"convert.quantize: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{OUTPUT} {file_sha256(OUTPUT)}{'' if made else ' (unchanged)'}")
    return 0


def make_base(entry: ModelEntry) -> bool:
    """build/models/base.gguf from one base; False if it is current.

    Raises: VerificationError for the source; EngineError with libllama's last words; StorageError.
    """
    [source] = [path for path in fetch(entry) if path.suffix == ".gguf"]
    file_type = entry.quantize or "none"
    inputs = {"source": file_sha256(source), "file_type": file_type, "code": CODE_VERSION}
    made = make_product("base", inputs, [OUTPUT], lambda: _write(source, file_type))
    actual = file_sha256(OUTPUT)
    if entry.quantized_sha256 not in (None, actual):
        # The input is verified: only a compiler's rounding can differ, and the manifest binds the result.
        print(f"note: {OUTPUT.name} is {actual}, the lock recorded {entry.quantized_sha256}", file=sys.stderr)
    return made


def _write(source: Path, file_type: str) -> None:
    print(f"re-quantizing {source.name} to {file_type}", file=sys.stderr, flush=True)
    with written_beside(OUTPUT) as beside:
        if file_type == "none":
            shutil.copyfile(source, beside)
        else:
            command = [
                sys.executable,
                "-m",
                "convert.quantize",
                "--child",
                str(source),
                str(beside),
                file_type,
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                last = "; ".join(done.stderr.strip().splitlines()[-3:])
                raise EngineError(
                    f"{source}: libllama could not quantize it to {file_type} ({done.returncode}): {last}"
                )
        read_header(beside)


def quantize_here(source: Path, target: Path, file_type: str, imatrix: Path | None = None) -> int:
    """The work itself, in the child; `imatrix` is what convert.imatrix wrote."""
    binding = native.load()
    usable = [
        one for one in cpu.variants(native.library_dir()) if one.score > 0 and one.name not in cpu.EXCLUDED
    ]
    cpu.load_backend(binding, str(usable[0].path))
    binding.llama_backend_init()
    params = binding.llama_model_quantize_default_params()
    params.ftype = getattr(binding, FILE_TYPES[file_type])
    params.nthread = cpu.thread_count()
    params.allow_requantize = True  # the published file is already quantized
    importance = _importance(binding, imatrix) if imatrix else None
    if importance is not None:
        params.imatrix = importance
    return int(binding.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params)))


def _importance(binding: Any, path: Path) -> Any:
    """The C array of (name, values), ended by an empty entry."""
    from safetensors.numpy import load_file

    listed = load_file(path)
    array = (binding.llama_model_imatrix_data * (len(listed) + 1))()
    for entry, (name, values) in zip(array, listed.items(), strict=False):
        kept = (ctypes.c_float * len(values))(*values.tolist())
        entry.name, entry.size = name.encode(), len(values)
        entry.data = ctypes.cast(kept, ctypes.POINTER(ctypes.c_float))  # keeps `kept` alive
    return array


if __name__ == "__main__":
    sys.exit(main())
