"""The frozen program: what is inside, and that it runs with nothing around it. Skipped if none is built."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import whis_box
from whis_box.errors import EXIT_OK, EXIT_USAGE, EXIT_VERIFICATION
from whis_box.paths import repository_root

FOLDER = Path(os.environ.get("WHIS_FROZEN", repository_root() / "dist" / "whis"))
LIMIT_MB = 350
NEVER_INSIDE = (
    "torch",
    "ragas",
    "mlflow",
    "transformers",
    "pytest",
    "hypothesis",
    "train",
    "convert",
    "tests",
)
pytestmark = pytest.mark.skipif(
    not (FOLDER / "whis").is_file(), reason=f"{FOLDER} is not built; run `make frozen` (or set WHIS_FROZEN)"
)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program in an environment with nothing in it."""
    return subprocess.run(
        [str(FOLDER / "whis"), *arguments], capture_output=True, text=True, env=environment, timeout=300
    )


def test_it_starts_in_an_empty_environment() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (EXIT_OK, f"whis {whis_box.__version__}\n")


def test_it_is_not_larger_than_promised() -> None:
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert size <= LIMIT_MB * 1e6


def test_nothing_of_the_build_host_is_inside() -> None:
    readers = pytest.importorskip("PyInstaller.archive.readers")
    archive = readers.CArchiveReader(str(FOLDER / "whis"))
    modules = set(archive.open_embedded_archive("PYZ.pyz").toc)
    names = {path.name for path in (FOLDER / "_internal").iterdir()} | {one.split(".")[0] for one in modules}
    assert not set(NEVER_INSIDE) & names
    assert {"whis_box.server.app", "whis_box.cli_state", "uvicorn.protocols.http.h11_impl"} <= modules
    assert ("tui.app" in modules) == (repository_root() / "tui" / "app.py").is_file()
    assert not [path for path in FOLDER.rglob("*") if path.is_symlink()]


def test_no_path_of_the_build_is_inside() -> None:
    """In the program's own modules and data; compiled libraries come from elsewhere and keep theirs."""
    readers = pytest.importorskip("PyInstaller.archive.readers")
    pyz = readers.CArchiveReader(str(FOLDER / "whis")).open_embedded_archive("PYZ.pyz")
    root = str(repository_root())
    for name in pyz.toc:
        if name.split(".")[0] in ("whis_box", "tui"):
            code = pyz.extract(name)
            assert code is None or not code.co_filename.startswith(root), name


def test_every_cpu_variant_is_inside_once() -> None:
    names = [path.name for path in FOLDER.rglob("libggml-cpu-*.so")]
    assert len(names) == len(set(names)) > 3
    assert len(list(FOLDER.rglob("libllama.so*"))) == 1


def test_commands_of_the_build_host_say_where_they_run() -> None:
    done = run("index", "build")
    assert done.returncode == EXIT_USAGE and "build host" in done.stderr


@pytest.mark.e2e
def test_it_verifies_a_box_and_finds_a_changed_byte(box: Path, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    assert run("box", "verify", "--box", str(box), WHIS_STATE=state, HOME=str(tmp_path)).returncode == EXIT_OK
    copy = tmp_path / "Wächter box"
    subprocess.run(["cp", "-r", str(box), str(copy)], check=True)
    with (copy / "configs" / "box.yaml").open("r+b") as stream:
        stream.write(b"\x01")
    done = run("box", "verify", "--box", str(copy), WHIS_STATE=state, HOME=str(tmp_path))
    assert done.returncode == EXIT_VERIFICATION and "configs/box.yaml" in done.stderr


@pytest.mark.e2e
def test_it_answers_from_a_path_with_a_space_and_an_umlaut(box: Path, tmp_path: Path) -> None:
    program = tmp_path / "Wächter box" / "whis"
    subprocess.run(["cp", "-r", str(FOLDER), str(program)], check=True)
    done = subprocess.run(
        [str(program / "whis"), "ask", "--json", "--box", str(box), "What does logon type 10 mean?"],
        capture_output=True,
        text=True,
        env={"WHIS_STATE": str(tmp_path / "state")},
        timeout=300,
    )
    assert done.returncode == EXIT_OK, done.stderr
    assert '"status":"answered"' in done.stdout
