"""`whis triage --export FORMAT`: the triage in a format another tool reads.

Invariant: with the option the same triage is made and only its form differs; the exit code is the same too.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from whis_box import batch
from whis_box.errors import EXIT_OK, EXIT_REFUSED, InputError

FORMATS = ("navigator", "stix", "case", "cacao")


def register(triage: argparse.ArgumentParser) -> None:
    """Add `--export` to the command; without it the command runs as before."""
    plain_run = triage.get_default("run")
    triage.add_argument(
        "--export",
        choices=FORMATS,
        help="print a Navigator layer, a STIX 2.1 bundle, a Markdown case note or a CACAO 2.0 proposal",
    )
    triage.set_defaults(run=lambda options: _run(options) if options.export else plain_run(options))


def _run(options: argparse.Namespace) -> int:
    from whis_box.box.opening import open_box
    from whis_box.exports import Case, export, to_text
    from whis_box.ingest.alerts import parse_event, read_alert

    if (options.file is None) == (options.input is None):
        raise InputError("give one alert file (or `-`), or --input FILE with one event per line")
    if options.file is not None:  # read before the model is loaded: a bad file is reported at once
        event = parse_event(batch.read_bytes(options.file), options.file)
    with open_box(options.box) as copilot:

        def case_of(one: dict[str, Any], request_id: str | None = None) -> Case:
            return Case(copilot.triage(one, request_id), read_alert(one), one, datetime.now(UTC))

        def answer(line: dict[str, Any]) -> dict[str, Any]:
            case = case_of(batch.event_of(line), line.get("id"))
            return {"request_id": case.triage.request_id, options.export: export(options.export, case)}

        if options.input is not None:
            return batch.run(options.input, answer)
        case = case_of(event)
    print(to_text(export(options.export, case)).rstrip("\n"))
    return EXIT_REFUSED if case.triage.abstained else EXIT_OK
