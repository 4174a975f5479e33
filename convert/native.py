"""Build the llama-cpp-python wheel with all CPU variants as loadable backends, and install it.

    python -m convert.native

A default build is tied to this CPU and, on machines with AMX, crashes in batched decode (llama.cpp issue
20824). This one holds a backend for each generation of x86 CPU; the program probes and chooses, and never
chooses AMX.
Invariant: a wheel is reused only if it was built from the same source, flags and Python.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from whis_box.errors import NotReadyError, WhisError

LOCK = Path(__file__).resolve().parent.parent / "requirements" / "native.lock"
CMAKE_FLAGS = (
    "-DGGML_NATIVE=OFF",
    "-DGGML_BACKEND_DL=ON",
    "-DGGML_CPU_ALL_VARIANTS=ON",
    "-DLLAVA_BUILD=OFF",
    "-DLLAMA_OPENSSL=OFF",
    # Otherwise the backends land outside the package, where nothing finds them.
    "-DCMAKE_INSTALL_BINDIR=llama_cpp/lib",
)
LOG_TAIL_LINES = 25
_STEP = re.compile(r"\[(\d+)/(\d+)\]")


def main() -> int:
    """Build if the cache holds no fitting wheel, then install into this Python."""
    try:
        wheel = cached_wheel() or build_wheel()
        install(wheel)
    except WhisError as error:
        print(f"convert.native: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{wheel.name} {hashlib.sha256(wheel.read_bytes()).hexdigest()}")
    return 0


def cache_dir() -> Path:
    """Where wheels built from one source, one set of flags and one Python are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = "\n".join([LOCK.read_text(), *CMAKE_FLAGS, sysconfig.get_platform(), platform.libc_ver()[1]])
    return base / "whis-box" / "native" / hashlib.sha256(key.encode()).hexdigest()[:16]


def cached_wheel() -> Path | None:
    """The wheel of an earlier build whose recorded hash still matches."""
    for wheel in cache_dir().glob("*.whl"):
        note = wheel.with_suffix(".sha256")
        if note.is_file() and note.read_text().strip() == hashlib.sha256(wheel.read_bytes()).hexdigest():
            return wheel
    return None


def build_wheel() -> Path:
    """Compile; 6 to 10 minutes on two cores.

    Raises: NotReadyError with the end of the compiler's output.
    """
    print(
        "building libllama with 14 CPU variants (6 to 10 minutes on two cores)", file=sys.stderr, flush=True
    )
    cores = str(len(os.sched_getaffinity(0)))
    environment = os.environ | {"CMAKE_ARGS": " ".join(CMAKE_FLAGS), "CMAKE_BUILD_PARALLEL_LEVEL": cores}
    environment["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # cmake and ninja of the venv
    )
    environment.pop("SOURCE_DATE_EPOCH", None)  # it would turn every instruction set off
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        _run_pip_wheel(Path(folder), environment)
        built = next(Path(folder).glob("*.whl"))
        wheel = cache / built.name
        digest = hashlib.sha256(built.read_bytes()).hexdigest()
        wheel.with_suffix(".sha256").write_text(digest + "\n")
        built.replace(wheel)
    return wheel


def _run_pip_wheel(folder: Path, environment: dict[str, str]) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--verbose",
        "--no-cache-dir",
        "--no-deps",
        "--no-build-isolation",
        "--require-hashes",
        "--requirement",
        str(LOCK),
        "--wheel-dir",
        str(folder),
    ]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    tail: list[str] = []
    shown = -1
    for line in process.stdout:
        tail = [*tail[1 - LOG_TAIL_LINES :], line.rstrip()[:300]]
        step = _STEP.search(line)
        if step and (percent := 100 * int(step[1]) // int(step[2])) // 5 > shown:
            shown = percent // 5
            print(f"libllama: {percent} % ({step[1]} of {step[2]} files)", file=sys.stderr, flush=True)
    if process.wait() != 0:
        raise NotReadyError(
            "llama-cpp-python could not be built; a C++ compiler is needed (Debian: build-essential). "
            "The build ended with:\n" + "\n".join(tail)
        )


def install(wheel: Path) -> None:
    """Put the wheel into this Python, unless it is there already.

    Raises: NotReadyError.
    """
    note = Path(sysconfig.get_paths()["purelib"]) / "llama_cpp" / ".whis-wheel-sha256"
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if note.is_file() and note.read_text() == digest:
        return
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--force-reinstall",
        str(wheel),
    ]
    if subprocess.run(command).returncode != 0:
        raise NotReadyError(f"{wheel}: could not be installed; see the message of pip")
    note.write_text(digest)


if __name__ == "__main__":
    sys.exit(main())
