"""Box: reading, promoting, going back and installing, on a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.server_box import Running
from tests.small_release import new_builder, write_first_root, write_release
from tests.tui_pilot import Terminal, drive
from tui.screens.box import media
from tui.screens.box.install import InstallPage, command_for
from tui.screens.box.media import Medium
from whis_box.box.install import pin
from whis_box.box.slots import Home
from whis_box.box.trust import fingerprint
from whis_box.durable import Disk


def test_the_box_shows_every_section_and_verifies(server: Running, tmp_path: Path) -> None:
    words = [
        "manifest",
        "restarts",
        "n_chunks",
        "stable",
        "good@1",
        "ask.answered",
        "not measured",
        "search",
        "",
    ]

    async def flow(running: Terminal) -> None:
        server.http.post("/v1/search", json={"query": "lsass"})
        await running.press("f5")
        for word in words:
            await running.sees(word)
            await running.press("j")
        await running.press("v")
        await running.sees("✓ intact: 1 files")

    drive(server, tmp_path, flow)


def test_a_rollback_asks_for_a_reason_and_for_yes(server: Running, tmp_path: Path) -> None:
    server.http.post("/v1/rollout/activate", json={"adapter": "good@1", "reason": "test"}).raise_for_status()

    async def flow(running: Terminal) -> None:
        await running.press("f5", "b")
        await running.type("worse")
        await running.press("enter")
        await running.sees("Rollback?", "Reason: worse")
        await running.press("n")
        assert server.http.get("/v1/rollout").json()["stable"]["adapter"] == "good@1"
        await running.press("b")
        await running.type("worse")
        await running.press("enter", "y")
        await running.sees("rollback done: base@box")
        assert server.http.get("/v1/rollout").json()["reason"] == "worse"

    drive(server, tmp_path, flow)


def test_a_canary_is_started_and_promoted_with_its_gate(server: Running, tmp_path: Path) -> None:
    async def flow(running: Terminal) -> None:
        await running.press("f5", "c")
        await running.sees("Canary: 10 percent", "✓ passed", "○ no gate file")
        await running.press("enter")
        await running.sees("Canary: why?")
        await running.type("looks better")
        await running.press("enter")
        await running.sees("Canary?", "A tenth of the requests", "Reason: looks better")
        await running.press("y")
        await running.sees("canary done: base@box", "10 percent by")
        await running.press("p")
        await running.type("agreed")
        await running.press("enter", "y")
        await running.sees("promote done: good@1", "canary           none")

    drive(server, tmp_path, flow, size=(120, 40))
    state = server.http.get("/v1/rollout").json()
    assert state["stable"]["adapter"] == "good@1" and state["reason"] == "agreed"


def test_an_adapter_without_a_gate_may_be_tried_but_not_promoted(server: Running, tmp_path: Path) -> None:
    async def flow(running: Terminal) -> None:
        for key, word in (("s", "Shadow"), ("c", "Canary")):
            await running.press("f5", key)
            await running.sees(f"{word}: ", "bad@1", "○ no gate file")
            await running.press("down", "enter")
            await running.type("to see")
            await running.press("enter", "y")
            await running.sees(f"{word.lower()} done: base@box", "! may not be promoted yet")
        await running.press("p")
        await running.type("now")
        await running.press("enter", "y")
        await running.sees("x promote: ", "gate.json: missing")

    drive(server, tmp_path, flow, size=(120, 40))
    state = server.http.get("/v1/rollout").json()
    assert state["stable"]["adapter"] == "base@box" and state["canary"]["adapter"] == "bad@1"


def test_what_cannot_be_promoted_is_refused_in_words(server: Running, tmp_path: Path) -> None:
    async def flow(running: Terminal) -> None:
        await running.press("f5", "p")
        await running.type("now")
        await running.press("enter", "y")
        await running.sees("x promote: there is no canary and no shadow to promote")

    drive(server, tmp_path, flow)


# ---------------------------------------------------------------- installing


@pytest.fixture
def usb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A mounted medium with release 1, and a home that trusts its builder."""
    mounts, home = tmp_path / "media", tmp_path / "home"
    builder = new_builder()
    raw = write_first_root(tmp_path / "trust", builder)
    folder = mounts / "kim" / "USB" / "release-1"
    write_release(folder, 1, builder.release_key)
    pin(Home(home, Disk()), tmp_path / "trust" / "root.1.json", fingerprint(raw))
    monkeypatch.setenv("WHIS_HOME", str(home))
    monkeypatch.setattr(media.find_media, "__defaults__", ((mounts,),))
    return folder


async def install(running: Terminal, folder: Path) -> None:
    """The keys of an install from the list of media."""
    await running.press("f5", "n")
    await running.sees("Found on mounted media", "whis-box 0.1.0, release 1", "another folder…")
    await running.press("enter")
    await running.sees("Install the box in", "Esc close")


def test_a_box_is_installed_from_a_mounted_medium(server: Running, tmp_path: Path, usb: Path) -> None:
    async def flow(running: Terminal) -> None:
        await install(running, usb)
        await running.sees("✓ installed", "sequence: 1", "changed: True")
        await running.press("escape")
        assert not isinstance(running.screen, InstallPage)

    drive(server, tmp_path, flow, size=(120, 40))
    assert Home(tmp_path / "home", Disk()).active() == 1


def test_a_changed_box_is_not_installed_and_it_is_said_why(
    server: Running, tmp_path: Path, usb: Path
) -> None:
    (usb / "models" / "base.gguf").write_bytes(b"GGUF, but another one")

    async def flow(running: Terminal) -> None:
        await install(running, usb)
        await running.sees("✗ not installed (it did not pass verification)", "models/base.gguf")

    drive(server, tmp_path, flow, size=(120, 40))
    assert Home(tmp_path / "home", Disk()).active() is None


def test_a_folder_that_is_typed_and_wrong_is_said(server: Running, tmp_path: Path, usb: Path) -> None:
    async def flow(running: Terminal) -> None:
        await running.press("f5", "n")
        await running.sees("another folder…")
        await running.press("end", "enter")
        await running.sees("The folder of a signed box or pack")
        running.screen.query_one("Input").value = str(tmp_path / "nothing")
        await running.press("enter")
        await running.sees("✗ not installed", "nothing", "Esc close")

    drive(server, tmp_path, flow, size=(120, 40))


def test_the_bar_measures_what_is_copied() -> None:
    page = InstallPage(Medium(Path("/media/usb"), "box", size_bytes=200_000_000))
    page._copied_bytes = 50e6
    assert page._progress() == "█████░░░░░░░░░░░░░░░ 50.0 MB of 200.0 MB copied"
    page._copied_bytes = 199e6
    assert "answer its own questions" in page._progress()


@pytest.mark.parametrize(
    "text", ["", "[]", '{"files": 3}', '{"files": [{"size_bytes": "x"}, 7]}', "\x00", "[" * 9999]
)
def test_a_manifest_that_lies_is_only_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    found = media.describe(tmp_path)
    assert found is None or found.size_bytes == 0


def test_a_pack_is_told_from_a_box(tmp_path: Path) -> None:
    (tmp_path / "pack.json").write_text('{"base_sequence": 7, "payloads": [{"size_bytes": 10}]}')
    (tmp_path / "manifest.json").write_text('{"name": "whis-box"}')
    found = media.describe(tmp_path)
    assert found is not None and (found.kind, found.size_bytes) == ("pack", 10)
    assert command_for(found)[-4:-1] == ["box", "pack", "apply"]
