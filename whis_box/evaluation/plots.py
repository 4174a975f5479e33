"""Plots as inline SVG: no script, no font, no file beside the report.

Invariant: whatever text goes in is escaped; a plot without data is not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 24, 38
INK, GRID, FIRST, SECOND = "#1c2733", "#d7dde4", "#2466a8", "#c2571a"
Point = tuple[float, float]


class Axes:
    """A frame with two linear axes."""

    def __init__(self, title: str, x: Point, y: Point, x_label: str, y_label: str) -> None:
        self._x, self._y = x, y
        self.parts = [_text(WIDTH / 2, 15, title, "middle", 13)]
        for step in range(5):
            value_x, value_y = (low + (high - low) * step / 4 for low, high in (x, y))
            across, down = self.at(value_x, value_y)
            self.parts.append(f'<path d="M{LEFT} {down:.1f}H{WIDTH - RIGHT}" stroke="{GRID}"/>')
            self.parts.append(_text(LEFT - 5, down + 4, f"{value_y:.3g}", "end"))
            self.parts.append(_text(across, HEIGHT - BOTTOM + 14, f"{value_x:.3g}", "middle"))
        self.parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle"))
        self.parts.append(
            f'<g transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)">'
            f"{_text(0, 0, y_label, 'middle')}</g>"
        )

    def at(self, x: float, y: float) -> Point:
        """Pixels of a value."""
        share_x = (x - self._x[0]) / ((self._x[1] - self._x[0]) or 1)
        share_y = (y - self._y[0]) / ((self._y[1] - self._y[0]) or 1)
        return LEFT + share_x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - share_y * (HEIGHT - TOP - BOTTOM)

    def line(self, points: Sequence[Point], color: str, dashed: bool = False) -> None:
        """A line through values."""
        path = "L".join(f"{across:.1f} {down:.1f}" for across, down in (self.at(*one) for one in points))
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(f'<path d="M{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>')

    def bar(self, low: float, high: float, value: float, color: str) -> None:
        """A bar from 0 to a value."""
        left, top = self.at(low, value)
        right, bottom = self.at(high, 0.0)
        self.parts.append(
            f'<rect x="{left + 1:.1f}" y="{top:.1f}" width="{max(0.5, right - left - 2):.1f}" '
            f'height="{max(0.0, bottom - top):.1f}" fill="{color}" fill-opacity="0.8"/>'
        )

    def svg(self) -> str:
        """The finished picture."""
        return _svg("".join(self.parts), WIDTH, HEIGHT)


def hit_curve(curve: Mapping[str, float]) -> str:
    """hit@k over k."""
    points = sorted((float(k), value) for k, value in curve.items())
    low = math.floor(min(value for _, value in points) * 10) / 10
    axes = Axes("hit@k", (points[0][0], points[-1][0]), (min(low, 0.9), 1.0), "k", "share of questions")
    axes.line(points, FIRST)
    return axes.svg()


def histogram(title: str, seconds: Sequence[float]) -> str:
    """How long the answers took."""
    n_bins, top = 30, max(seconds) or 1.0
    counts = [0] * n_bins
    for one in seconds:
        counts[min(n_bins - 1, int(one / top * n_bins))] += 1
    axes = Axes(title, (0.0, top), (0.0, float(max(counts))), "seconds", "count")
    for place, count in enumerate(counts):
        axes.bar(place * top / n_bins, (place + 1) * top / n_bins, count, FIRST)
    return axes.svg()


def reliability(title: str, bins: Sequence[Mapping[str, float]]) -> str:
    """Accuracy against confidence, with the line of a confidence that is true."""
    axes = Axes(title, (0.0, 1.0), (0.0, 1.0), "confidence", "share that was right")
    for one in bins:
        axes.bar(one["low"], one["high"], one["accuracy"], FIRST)
    axes.line([(0.0, 0.0), (1.0, 1.0)], SECOND, dashed=True)
    return axes.svg()


def loss_curve(curve: Sequence[Mapping[str, float | None]]) -> str:
    """Training loss, and validation loss where it was taken."""
    train = [(float(one["step"] or 0), float(one["loss"] or 0)) for one in curve]
    held = [(float(one["step"] or 0), value) for one in curve if (value := one["val_loss"]) is not None]
    top = max(value for _, value in [*train, *held])
    axes = Axes("loss (validation dashed)", (train[0][0], train[-1][0]), (0.0, top), "step", "nats a token")
    axes.line(train, FIRST)
    if held:
        axes.line(held, SECOND, dashed=True)
    return axes.svg()


def confusion(labels: Sequence[str], table: Sequence[Sequence[int]]) -> str:
    """Counts of expected (rows) and given (columns) labels."""
    cell, margin = 58, 130
    size = len(labels)
    most = max((count for row in table for count in row), default=0) or 1
    parts = [
        _text(margin + cell * size / 2, 14, "given", "middle", 12),
        _text(6, 14, "expected", "start", 12),
    ]
    for place, label in enumerate(labels):
        middle = 40 + margin / 2 + place * cell + cell / 2
        parts.append(_text(margin - 6, middle, label, "end"))
        across = margin + place * cell + cell / 2
        turned = f"translate({across} {36 + margin / 2}) rotate(-35)"
        parts.append(f'<g transform="{turned}">{_text(0, 0, label, "start")}</g>')
    for row, counts in enumerate(table):
        for column, count in enumerate(counts):
            left, top = margin + column * cell, 40 + margin / 2 + row * cell
            parts.append(
                f'<rect x="{left}" y="{top}" width="{cell - 2}" height="{cell - 2}" fill="{FIRST}" '
                f'fill-opacity="{0.06 + 0.7 * count / most:.2f}"/>'
            )
            parts.append(_text(left + cell / 2, top + cell / 2 + 4, str(count), "middle", 12))
    return _svg("".join(parts), margin + cell * size + 90, int(margin / 2) + 50 + cell * size)


def _svg(inside: str, width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="system-ui, sans-serif" fill="{INK}">{inside}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str, size: int = 10) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(str(text))}</text>'
    )
