"""The frozen program: what is inside, and that it runs with nothing around it. Skipped if none is built."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import httpx
import pytest

import whis_box
from tests.test_tui_tmux import Tmux, connected
from whis_box.box.libraries import frozen_libraries, normalized
from whis_box.errors import EXIT_OK, EXIT_USAGE, EXIT_VERIFICATION
from whis_box.paths import repository_root

FOLDER = Path(os.environ.get("WHIS_FROZEN", repository_root() / "dist" / "whis"))
LIMIT_MB = 350
NEVER_INSIDE = {"torch", "ragas", "mlflow", "transformers", "pytest", "_pytest", "hypothesis", "jinja2"} | {
    "train",
    "convert",
    "tests",
    "unittest",
}
LOCKS = ("runtime", "native")
QUESTION = "What does logon type 10 mean?"
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
    assert not NEVER_INSIDE & names
    assert {"whis_box.server.app", "whis_box.cli_state", "uvicorn.protocols.http.h11_impl"} <= modules
    assert "tui.app" in modules and (FOLDER / "_internal" / "tui" / "whis.tcss").is_file()
    assert not [path for path in FOLDER.rglob("*") if path.is_symlink()]


def test_every_distribution_inside_is_locked_for_the_runtime() -> None:
    """So whatever else the build host has installed, the same program comes out."""
    readers = pytest.importorskip("PyInstaller.archive.readers")
    modules = set(readers.CArchiveReader(str(FOLDER / "whis")).open_embedded_archive("PYZ.pyz").toc)
    texts = [(repository_root() / "requirements" / f"{name}.lock").read_text() for name in LOCKS]
    locked = set(re.findall(r"^([a-z0-9-]+)==", "\n".join(texts), re.MULTILINE)) | {"whis-box"}
    owners = metadata.packages_distributions()
    for module in {one.split(".")[0] for one in modules} & owners.keys():
        assert {normalized(one) for one in owners[module]} & locked, module
    assert "opentelemetry.sdk" not in modules, "a namespace that a locked distribution shares with a tool"
    written_down = frozen_libraries(FOLDER)
    ours = {one.name for one in written_down if not one.purl}
    assert {"textual", "onnxruntime", "sqlite-vec", "llama-cpp-python"} <= ours <= locked | {"pyinstaller"}
    assert {"cpython", "libffi8", "zlib1g"} <= {one.name for one in written_down} or not shutil.which("dpkg")


def test_no_path_of_the_build_is_inside() -> None:
    """Neither of the repository, nor of where libllama and the interpreter were compiled.

    Other libraries come compiled from elsewhere and keep their builders' paths.
    """
    places = [str(repository_root()), "/pip-wheel-"]
    if sys.base_prefix not in ("/usr", "/usr/local"):
        places.append(sys.base_prefix)
    for path in sorted(one for one in FOLDER.rglob("*") if one.is_file()):
        raw = path.read_bytes()
        assert not [place for place in places if place.encode() in raw], path
    readers = pytest.importorskip("PyInstaller.archive.readers")
    pyz = readers.CArchiveReader(str(FOLDER / "whis")).open_embedded_archive("PYZ.pyz")
    for name in pyz.toc:
        code = pyz.extract(name)
        if code is not None:
            assert not [place for place in places if place in text_of(code)], name


def text_of(code: types.CodeType) -> str:
    """Every file name and constant of a module, also of what is defined in it."""
    inner = [text_of(one) if isinstance(one, types.CodeType) else str(one) for one in code.co_consts]
    return "\n".join([code.co_filename, *inner])


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
    subprocess.run(["cp", "-rL", str(box), str(copy)], check=True)
    with (copy / "configs" / "box.yaml").open("r+b") as stream:
        stream.write(b"\x01")
    done = run("box", "verify", "--box", str(copy), WHIS_STATE=state, HOME=str(tmp_path))
    assert done.returncode == EXIT_VERIFICATION and "configs/box.yaml" in done.stderr


@pytest.mark.e2e
def test_it_answers_from_a_path_with_a_space_and_an_umlaut(box: Path, tmp_path: Path) -> None:
    program = tmp_path / "Wächter box" / "whis"
    program.parent.mkdir()
    subprocess.run(["cp", "-r", str(FOLDER), str(program)], check=True)
    done = subprocess.run(
        [str(program / "whis"), "ask", "--json", "--box", str(box), QUESTION],
        capture_output=True,
        text=True,
        env={"WHIS_STATE": str(tmp_path / "state")},
        timeout=300,
    )
    assert done.returncode == EXIT_OK, done.stderr
    assert '"status":"answered"' in done.stdout


@pytest.mark.e2e
def test_it_triages_an_alert(box: Path, tmp_path: Path) -> None:
    alert = str(repository_root() / "examples" / "alert.json")
    done = run("triage", "--json", "--box", str(box), alert, WHIS_STATE=str(tmp_path))
    assert done.returncode == EXIT_OK, done.stderr
    assert '"verdict":"escalate"' in done.stdout


@pytest.mark.e2e
def test_it_serves_questions_and_finds_the_passage(box: Path, tmp_path: Path) -> None:
    with serving(box, tmp_path) as client:
        answer = client.post("/v1/ask", json={"question": QUESTION}).json()
        assert answer.get("status") == "answered", answer
        assert "win-security-4624" in {one["record_id"] for one in answer["citations"]}


@contextmanager
def serving(box: Path, state: Path) -> Iterator[httpx.Client]:
    """`whis serve` of the frozen program on a Unix socket."""
    place = state / "whis.sock"
    command = [str(FOLDER / "whis"), "serve", "--box", str(box), "--uds", str(place)]
    with subprocess.Popen(
        command, env={"WHIS_STATE": str(state)}, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stderr is not None
            while not place.exists():
                assert server.poll() is None, server.stderr.read()
            transport = httpx.HTTPTransport(uds=str(place), retries=3)
            with httpx.Client(transport=transport, base_url="http://whis", timeout=300) as client:
                while client.get("/readyz").status_code != 200:
                    assert server.poll() is None, server.stderr.read()
                    time.sleep(0.2)
                yield client
        finally:
            server.terminate()
            server.wait(60)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Tmux]:
    """A tmux that ends with the test."""
    one = Tmux(tmp_path)
    yield one
    one.run("kill-server")


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_its_terminal_answers_and_looks_as_it_should(terminal: Tmux, box: Path, tmp_path: Path) -> None:
    """The style sheet, the widgets and the private server are all inside."""
    words = [f"WHIS_STATE={tmp_path}/state", f"XDG_RUNTIME_DIR={tmp_path}", f"XDG_CONFIG_HOME={tmp_path}"]
    start = ["env", "-i", "TERM=screen-256color", "LANG=C.UTF-8", *words, str(FOLDER / "whis"), "tui"]
    terminal.start(" ".join([*start, "--box", str(box)]), 100, 30)
    terminal.sees(connected)
    terminal.run("send-keys", "-l", QUESTION)
    terminal.run("send-keys", "Enter")
    seen = terminal.sees(lambda seen: "Answered from" in seen)
    assert "[1]" in seen and "Traceback" not in seen and "stylesheet" not in seen.lower()
