"""Text that wraps beside its label, and keys that come before the screen they are meant for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App
from textual.content import Content
from textual.widgets import Input

from tests.server_box import Running
from tests.tui_pilot import Terminal, drive
from tui.screens.dialog import AskLine
from tui.widgets.hanging import HANG, hung


def test_a_long_value_goes_on_below_its_beginning() -> None:
    shown = hung(Content(f"licence   {HANG}a b c d e f g h i j k l m n o p"), 30).plain
    assert shown == "licence   a b c d e f g h i j\n          k l m n o p"


def test_a_value_without_a_space_does_not_leave_its_label() -> None:
    assert (
        hung(Content(f"sha256    {HANG}{'f' * 30}"), 30).plain
        == f"sha256    {'f' * 20}\n{' ' * 10}{'f' * 10}"
    )


def test_a_window_too_narrow_for_two_columns_begins_at_the_left() -> None:
    assert hung(Content(f"why found {HANG}shared words"), 14).plain == "why found\nshared words"


def test_a_click_still_opens_the_source_that_it_shows() -> None:
    content = Content.assemble("one ", ("[1]", "bold"), " two ", ("[22]", "underline"))
    lines = hung(content, 9).split("\n")
    assert [(span.style, lines[1].plain[span.start : span.end]) for span in lines[1].spans] == [
        ("underline", "[22]")
    ]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs", "Mn", "Me", "Cf"])), max_size=5),
    st.integers(2, 60),
)
def test_no_line_is_wider_than_the_window_and_no_word_is_lost(lines: list[str], width: int) -> None:
    text = "\n".join(line.replace("\n", " ") for line in lines)
    shown = hung(Content(text), width).plain
    assert all(cell_len(line) <= width for line in shown.split("\n"))
    assert "".join(shown.split()) == "".join(text.split())


@pytest.mark.parametrize("keys", ["abc", "a"])
def test_keys_that_are_faster_than_a_dialog_are_in_its_line(keys: str) -> None:
    given_: list[str | None] = []

    async def flow() -> None:
        app: App[None] = App()
        async with app.run_test() as pilot:
            app.push_screen(AskLine("Why?"), given_.append)
            dialog = app.screen
            for one in keys:
                app.post_message(key_event(one))
            await pilot.pause()
            assert dialog.query_one(Input).value == keys
            await pilot.press("enter")

    asyncio.run(flow())
    assert given_ == [keys]


def key_event(character: str) -> object:
    """A key as the driver sends it."""
    from textual.events import Key

    return Key(character, character)


def test_what_is_left_of_a_lost_connection_is_said(server: Running, tmp_path: Path) -> None:
    async def flow(running: Terminal) -> None:
        running.app.link.lost("the cable")
        await running.sees("connected again")

    drive(server, tmp_path, flow)
