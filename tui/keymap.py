"""Every key of the terminal in one table: action, keys, words. `keymap` in tui.yaml changes the keys.

Invariant: an action's name is `place.what`, and a screen binds only actions of this table.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding


@dataclass(frozen=True)
class Key:
    """Default keys of one action, and what the footer and the help say."""

    keys: str
    says: str
    shown: bool = False


KEYS: dict[str, Key] = {
    "app.ask": Key("f2", "Ask"),
    "app.triage": Key("f3", "Triage"),
    "app.library": Key("f4", "Library"),
    "app.box": Key("f5", "Box"),
    "app.next_area": Key("ctrl+t", "Next area"),
    "app.help": Key("f1,question_mark", "Help", True),
    "app.palette": Key("ctrl+p", "More", True),
    "app.theme": Key("f9", "Next theme"),
    "app.reconnect": Key("f8", "Connect again"),
    "app.quit": Key("ctrl+q", "Quit"),
    "pane.wider": Key("ctrl+left,less_than_sign", "Wider evidence or detail"),
    "pane.narrower": Key("ctrl+right,greater_than_sign", "Narrower evidence or detail"),
    "pane.copy": Key("y,ctrl+y", "Copy"),
    "ask.stop": Key("escape", "Stop"),
    "ask.question": Key("i,slash", "Question"),
    "ask.promptbook": Key("ctrl+o", "Promptbooks", True),
    "ask.history": Key("ctrl+r", "History", True),
    "ask.follow_up": Key("ctrl+f", "Follow up", True),
    "ask.evidence": Key("ctrl+e", "Next source", True),
    "ask.previous_evidence": Key("ctrl+b", "Previous source"),
    "ask.new": Key("ctrl+n", "Clear the conversation"),
    "ask.rate_up": Key("plus,equals_sign", "Good answer"),
    "ask.rate_down": Key("minus", "Bad answer"),
    "rows.down": Key("down,j", "Down"),
    "rows.up": Key("up,k", "Up"),
    "rows.page_down": Key("pagedown,ctrl+d", "Page down"),
    "rows.page_up": Key("pageup,ctrl+u", "Page up"),
    "rows.first": Key("home,g", "First"),
    "rows.last": Key("end,G", "Last"),
    "rows.open": Key("enter", "Open", True),
    "rows.mark": Key("space", "Mark", True),
    "rows.mark_all": Key("asterisk", "Mark all shown"),
    "rows.sort": Key("s", "Sort"),
    "rows.filter": Key("slash", "Filter", True),
    "triage.open": Key("o", "Open", True),
    "triage.run": Key("t", "Triage", True),
    "triage.run_all": Key("T", "Triage all new"),
    "triage.stop": Key("escape", "Back, or stop jobs"),
    "triage.accept": Key("a", "Accept", True),
    "triage.correct": Key("c", "Correct", True),
    "triage.reject": Key("x", "Reject", True),
    "triage.export": Key("e", "Export", True),
    "triage.raw": Key("r", "Raw event"),
    "triage.step": Key("space", "Tick"),
    "triage.next_step": Key("n", "Next step"),
    "triage.jobs": Key("J", "Jobs of the server"),
    "raw.search": Key("slash", "Search", True),
    "raw.next": Key("n", "Next match", True),
    "raw.previous": Key("N", "Previous match"),
    "raw.close": Key("escape,r,q", "Close", True),
    "library.search": Key("s", "Search passages", True),
    "library.sources": Key("u", "Sources", True),
    "library.filter": Key("slash", "Filter", True),
    "library.ingest": Key("n", "Ingest", True),
    "library.purge": Key("D", "Purge", True),
    "library.review": Key("v", "Review"),
    "library.kind": Key("f", "Next kind", True),
    "library.stop": Key("x", "Stop the change"),
    "library.back": Key("escape", "Back", True),
    "box.refresh": Key("r", "Refresh", True),
    "box.verify": Key("v", "Verify", True),
    "box.promote": Key("p", "Promote canary", True),
    "box.rollback": Key("b", "Roll back", True),
    "box.canary": Key("c", "Start a canary"),
    "box.shadow": Key("s", "Start a shadow"),
    "box.install": Key("n", "Install", True),
    "dialog.close": Key("escape", "Close", True),
    "dialog.yes": Key("y", "Yes", True),
    "dialog.no": Key("n,escape", "No", True),
}


def key(name: str, action: str, shown: bool | None = None, priority: bool = False) -> Binding:
    """The binding of an action of the table to what a screen or widget does."""
    held = KEYS[name]
    show = held.shown if shown is None else shown
    return Binding(held.keys, action, held.says, show=show, priority=priority, id=name)
