"""What goes wrong: a message in place, nothing lost, no traceback; and no escape sequence gets through."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.color import Color

from tests.server_box import ALERT, QUESTION, Running
from tests.tui_pilot import Terminal, terminal
from tui.app import WhisTui
from tui.errors import RequestFailedError
from tui.keymap import KEYS
from tui.local_server import PrivateServer, runtime_dir
from tui.safe_text import safe, safe_line, to_ascii
from tui.screens.triage.reading import read_all
from tui.screens.trouble import case_of
from tui.settings import TuiConfig, read_settings
from tui.state import NAME, State
from tui.widgets.ascii import AsciiOnly
from whis_box.errors import ConfigError, NotReadyError, StorageError
from whis_box.paths import repository_root

ATTACK = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m\x08\x7f\u202etxt.exe\u200b\x1b]52;c;ZXZpbA==\x07"


def on(server: Running, folder: Path, flow: Any, **options: Any) -> None:
    """Run one flow."""

    async def whole() -> None:
        async with terminal(server.url, folder, **options) as running:
            await flow(running)

    asyncio.run(whole())


# -------------------------------------------------------------- injection


@given(st.text())
def test_no_control_character_passes(text: str) -> None:
    shown = safe(text)
    assert not any((ord(one) < 32 and one != "\n") or 127 <= ord(one) < 160 for one in shown)
    assert not any(one in shown for one in "\u202e\u2066\u200b\ufeff\u2028\x1b\x9b")
    assert "\n" not in safe_line(text)


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert safe(text) == text


def test_an_attack_stays_visible() -> None:
    assert safe("\x1b[2J") == "␛[2J" and safe("\u202egpj.exe") == "<U+202E>gpj.exe"
    assert len(safe("a" + "\u0301" * 50)) == 4, "marks piled up over the line above"


@given(st.text())
def test_ascii_is_ascii(text: str) -> None:
    assert to_ascii(text).isascii()


def test_escape_sequences_in_an_alert_never_reach_the_terminal(server: Running, tmp_path: Path) -> None:
    path = tmp_path / "evil.json"
    evil = ALERT | {
        "rule": {"name": f"evil {ATTACK}"},
        "host": {"name": ATTACK},
        ATTACK: [ATTACK, {ATTACK: 1}],
    }
    path.write_text(json.dumps(evil))

    async def flow(running: Terminal) -> None:
        await running.sees("evil")
        await running.press("t")
        await running.sees("escalate")
        await running.press("enter")
        pages = [running.text()]
        await running.press("escape", "r", "slash")
        await running.type("owned")
        await running.press("enter")
        await running.sees("owned")
        pages.append(running.text())
        for page in pages:
            assert not any(ord(one) < 32 and one != "\n" for one in page), repr(page)
            assert not any(one in page for one in "\x7f\x9b\u202e\u200b"), repr(page)
        await running.press("escape", "y")
        assert "\x1b" not in running.app.clipboard and "\x07" not in running.app.clipboard

    on(server, tmp_path / "ui", flow, alerts=[str(path)], size=(120, 40))


# -------------------------------------------------------------- bad input


def test_a_line_that_is_not_json_is_a_row_with_its_reason(server: Running, tmp_path: Path) -> None:
    path = tmp_path / "mixed.ndjson"
    path.write_bytes(
        json.dumps(ALERT).encode()
        + b"\n{not json\n\xff\xfe\x00\n[1,2]\n\n"
        + json.dumps(ALERT | {"_id": "b"}).encode()
    )

    async def flow(running: Terminal) -> None:
        await running.sees("5 alerts taken in; 3 cannot be read, they are marked BAD")
        await running.press("T")
        await running.sees("2 done, 3 bad")
        await running.press("down")
        await running.sees("line 2")

    on(server, tmp_path / "ui", flow, alerts=[str(path)], size=(120, 40))


def test_an_alert_of_five_megabytes_is_refused_with_its_size_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "big.ndjson"
    big = json.dumps(ALERT | {"blob": "A" * 5_000_001})
    path.write_text(f"{big}\n{json.dumps(ALERT)}\n")
    first, second = read_all([str(path)])
    assert first.state == "bad" and "5000000" in first.problem and "line 1" in first.problem
    assert second.state == "new" and second.event()["_id"] == "alert-1"


def test_a_file_that_changes_or_goes_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(ALERT))
    [row] = read_all([str(path)])
    path.write_text(json.dumps(ALERT | {"_id": "other"}))
    with pytest.raises(StorageError, match="changed since it was opened"):
        row.event()
    path.unlink()
    with pytest.raises(StorageError, match=r"a\.json"):
        row.event()
    [gone] = read_all([str(path)])
    assert gone.state == "bad" and "no such file" in gone.problem


def test_what_is_piped_in_is_read_like_a_file() -> None:
    rows = list(read_all([], f"{json.dumps(ALERT)}\n{{\n".encode()))
    assert [row.state for row in rows] == ["new", "bad"] and rows[0].event()["_id"] == "alert-1"


def test_a_server_that_goes_in_mid_stream_loses_nothing(server: Running, tmp_path: Path) -> None:
    async def flow(running: Terminal) -> None:
        server.engine.gate.clear()
        running.screen.query_one("#question").value = QUESTION
        await running.press("enter")
        await running.until(lambda: server.engine.lanes)
        for one in list(server.server.server_state.connections):
            one.transport.abort()
        seen = await running.sees("not answered:")
        assert running.screen.query_one("#question").value == QUESTION and "Traceback" not in seen
        server.engine.gate.set()
        await running.until(lambda: running.app.link.state == "ready")
        await running.press("enter")
        await running.sees("✓ Answered")

    on(server, tmp_path / "ui", flow)


def test_no_server_at_the_named_address_opens_the_page_that_helps(tmp_path: Path) -> None:
    async def whole() -> None:
        async with terminal("http://127.0.0.1:9", tmp_path / "ui") as running:
            await running.sees("No server answers", "F8 try again", "127.0.0.1:9")
            await running.press("escape")
            running.screen.query_one("#question").value = "still here"
            await running.press("enter")
            assert running.screen.query_one("#question").value == "still here"

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("problem", "title"),
    [
        ("index: no document is in the index", "The index is empty"),
        (
            "build/box/manifest.json: missing; run `make demo` or copy the box again",
            "The box is not complete",
        ),
        ("engine: the model process ended", "The model does not run"),
        ("/run/w.sock: another server answers there; stop it", "A file is held by another program"),
        ("models/base.bin: sha256 is 1, the manifest says 2", "The box is not complete"),
        ("/state: cannot write: the file system is read-only", "The state folder cannot be written"),
        ("the server at http://x does not answer", "No server answers"),
    ],
)
def test_each_trouble_has_a_page_that_says_what_to_do(problem: str, title: str) -> None:
    shown, words = case_of(problem)
    assert shown == title and words


def test_an_empty_index_is_said(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from whis_box.server import library

    real = library.overview
    monkeypatch.setattr(library, "overview", lambda *given: real(*given).model_copy(update={"sources": []}))

    async def flow(running: Terminal) -> None:
        await running.sees("The index is empty", "whis ingest")

    on(server, tmp_path / "ui", flow)


def test_a_dead_engine_is_said(server: Running, tmp_path: Path) -> None:
    server.engine.pid = None  # type: ignore[assignment]

    async def flow(running: Terminal) -> None:
        await running.sees("The model does not run", "whis doctor")

    on(server, tmp_path / "ui", flow)


def test_a_state_folder_that_cannot_be_written_costs_only_the_memory(server: Running, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")

    async def flow(running: Terminal) -> None:
        await running.sees("cannot be written")
        await running.ask(QUESTION)
        await running.press("ctrl+r")
        await running.sees("audit log is cleared?")

    on(server, blocked / "ui", flow, size=(160, 40))


def test_a_state_file_that_another_program_holds_is_said_and_work_goes_on(tmp_path: Path) -> None:
    import apsw

    State(tmp_path).close()
    holder = apsw.Connection(str(tmp_path / NAME))
    holder.execute("begin exclusive")
    state = State(tmp_path)
    state.remember("q", "a", "{}")
    assert "locked" in state.problem and [one.question for one in state.history()] == ["q"]
    state.close()
    holder.close()


def test_a_state_file_full_of_noise_is_said(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(os.urandom(8192))
    state = State(tmp_path)
    assert "tui.sqlite" in state.problem or str(tmp_path) in state.problem
    state.put("theme", "light")
    assert state.get("theme") == "light"
    state.close()


def test_settings_that_are_wrong_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tui.yaml"
    path.write_text("theme: pink\nkeymap: {ask.fly: f7}\n")
    with pytest.raises(ConfigError, match="theme is 'pink'"):
        read_settings(path)
    path.write_text("keymap: {ask.fly: f7}\n")
    with pytest.raises(ConfigError, match=r"no action ask\.fly"):
        read_settings(path)


def test_a_fault_of_our_own_is_one_line_and_a_log(server: Running, tmp_path: Path) -> None:
    async def broken() -> None:
        raise ZeroDivisionError("planted")

    async def flow(running: Terminal) -> None:
        running.screen.work("planted", broken)
        await running.sees("unexpected fault (ZeroDivisionError)")
        assert "planted" in (tmp_path / "ui" / "tui.log").read_text() and "planted" not in running.text()

    on(server, tmp_path / "ui", flow)


def test_a_terminal_that_is_not_utf8_gets_ascii_only(server: Running, tmp_path: Path) -> None:
    async def flow(running: Terminal) -> None:
        await running.ask(QUESTION)
        await running.pilot.pause(0.3)
        assert running.text().isascii() and "Answered from 2 passages" in running.text()

    on(server, tmp_path / "ui", flow, ascii="yes")


def test_the_ascii_filter_keeps_the_width() -> None:
    from rich.segment import Segment

    [done] = AsciiOnly(True).apply([Segment("│ 漢字 é ✓")], Color(0, 0, 0))
    assert done.text == "| ???? e v" and done.cell_length == 10


def test_a_socket_folder_that_others_may_enter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = runtime_dir()
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o755)
    with pytest.raises(StorageError, match="not yours alone"):
        runtime_dir()


def test_the_terminal_refuses_what_is_no_terminal() -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "whis_box.cli", "tui"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2 and "needs a terminal" in done.stderr and "Traceback" not in done.stderr


def test_errors_of_the_server_keep_its_words() -> None:
    from tui.connection import _failure

    body = json.dumps({"error": {"message": "too long", "type": "t", "param": None, "code": "c"}}).encode()
    error = _failure(503, body, {"retry-after": "7"}, "/x")
    assert isinstance(error, RequestFailedError) and str(error) == "too long" and error.retry_after_s == 7
    assert "status 500" in str(_failure(500, b"<html>", {}, "/x"))


def test_the_manual_lists_every_action_with_its_keys() -> None:
    manual = (repository_root() / "docs" / "tui.md").read_text(encoding="utf-8")
    missing = [
        name for name, one in KEYS.items() if f"| `{name}` | `{one.keys}` | {one.says} |" not in manual
    ]
    assert not missing


def test_the_app_needs_no_server_to_be_made(tmp_path: Path) -> None:
    assert WhisTui(TuiConfig(), tmp_path, None).link.state == "connecting"


def test_a_program_that_this_user_may_not_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\n")
    monkeypatch.setattr("sys.executable", str(program))
    with pytest.raises(NotReadyError, match=f"cannot start {program}: Permission denied"):
        asyncio.run(PrivateServer(tmp_path / "box").start(""))
