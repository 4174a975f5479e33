"""Two questions and one alert against the assembled box: the end of `make demo`."""

from __future__ import annotations

import json
import time
from pathlib import Path

from whis_box import show
from whis_box.box.opening import open_box
from whis_box.paths import default_box

QUESTIONS = (
    "Which Windows event ID is logged when the audit log is cleared?",
    "How do I tell password spraying from a brute force attack on one account?",
)
ALERT = Path(__file__).with_name("alert.json")


def main() -> None:
    """Open the box once, ask, triage, print."""
    started = time.perf_counter()
    with open_box(default_box()) as copilot:
        print(f"box verified and loaded in {time.perf_counter() - started:.1f} s\n")
        for question in QUESTIONS:
            print(f"$ whis ask {question!r}\n")
            print(show.answer(copilot.ask(question)), "\n")
        print(f"$ whis triage examples/{ALERT.name}\n")
        print(show.triage(copilot.triage(json.loads(ALERT.read_text(encoding="utf-8")))))


if __name__ == "__main__":
    main()
