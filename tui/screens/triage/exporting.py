"""Writing a case to a file; the formats are made by the server, the file by the terminal."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tui.screens.triage.reading import Row
from whis_box.paths import written_beside
from whis_box.schemas import Triage

if TYPE_CHECKING:
    from tui.client import Client

NAME_CHARS = 80


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
