"""A row of figures as one line of blocks, with its lowest and highest in words beside it."""

from __future__ import annotations

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """The last `width` values; empty without any."""
    shown = list(values)[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    spread = high - low
    if not spread:
        return BLOCKS[0] * len(shown)
    return "".join(BLOCKS[round((one - low) / spread * (len(BLOCKS) - 1))] for one in shown)
