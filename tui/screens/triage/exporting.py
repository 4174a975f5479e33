"""Export: which format, which folder, then files; the server makes the formats, the terminal the files."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tui.screens.dialog import AskLine, Choose
from tui.screens.triage.reading import Row
from tui.widgets.rows import Column
from tui.words import counted
from whis_box.paths import written_beside
from whis_box.schemas import Triage

if TYPE_CHECKING:
    from tui.client import Client
    from tui.screens.triage.screen import TriageScreen

EXPORTS = {"case": "md", "json": "json", "stix": "json", "navigator": "json", "cacao": "json"}
EXPORT_WORDS = {
    "case": "Markdown note for a ticket",
    "json": "the triage as JSON",
    "stix": "STIX 2.1 bundle",
    "navigator": "ATT&CK Navigator layer",
    "cacao": "CACAO 2.0 playbook proposal",
}
COLUMNS: list[Column[str]] = [
    Column("format", 12, lambda one: one),
    Column("what", 0, lambda one: EXPORT_WORDS[one]),
]
NAME_CHARS = 80


class Exporter:
    """The exports of one area."""

    def __init__(self, area: TriageScreen) -> None:
        self._area = area

    def choose(self, rows: list[Row]) -> None:
        """Ask for a format, then for a folder."""

        def ask_folder(form: str | None) -> None:
            if form is not None:
                what = f"{counted(len(rows), 'alert')} as {EXPORT_WORDS[form]}"
                line = AskLine("Export to folder", what, str(Path.cwd()))
                self._area.app.push_screen(line, lambda folder: begin(form, folder))

        def begin(form: str, folder: str | None) -> None:
            if folder is not None:
                self._area.work("export", self._export, rows, form, Path(folder).expanduser())

        self._area.app.push_screen(Choose("Export", list(EXPORTS), COLUMNS), ask_folder)

    async def _export(self, rows: list[Row], form: str, folder: Path) -> None:
        queue = self._area.queue
        assert queue is not None
        path = folder
        for row in rows:
            triage = queue.triage_of(row)
            assert triage is not None
            client = self._area.client if form != "json" else None
            if client is None and form != "json":
                return
            path = await write_case(client, form, EXPORTS[form], row, triage, folder)
        self._area.say(f"wrote {path}" if len(rows) == 1 else f"wrote {len(rows)} files to {folder}")


async def write_case(
    client: Client | None, form: str, suffix: str, row: Row, triage: Triage, folder: Path
) -> Path:
    """One alert in a format as `folder/ALERT.FORMAT.SUFFIX`; the path.

    Raises: StorageError, InputError, and what the client raises.
    """
    event = await asyncio.to_thread(row.event) if form != "json" else {}
    text = triage.model_dump_json(indent=2) if client is None else await client.export(form, triage, event)
    # The alert names the file, so its name is untrusted.
    name = (
        re.sub(r"[^A-Za-z0-9._-]+", "_", row.alert_id or triage.alert_id).strip("._")[:NAME_CHARS] or "alert"
    )
    target = folder / f"{name}.{row.key[:8]}.{form}.{suffix}"
    with written_beside(target) as beside:
        beside.write_text(f"{text.rstrip()}\n", encoding="utf-8")
    return target
