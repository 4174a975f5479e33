"""The static attacks: every payload in every place and disguise, and a fixed sample of them."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from pathlib import Path

from tests.attacks.disguises import DISGUISES
from tests.attacks.events import PLACES, Event

PAYLOADS = Path(__file__).with_name("payloads.tsv")
DOCUMENT_PLACES = ("document", "title", "heading", "split_passages")
ALERT_GOALS = ("flip", "say", "link", "extract", "schema")
DOCUMENT_GOALS = ("say", "link", "extract", "schema", "forge", "hijack", "deny")
SEED = 7


@dataclass(frozen=True)
class Attack:
    """One planted text: where, how disguised, what for."""

    id: str
    place: str
    disguise: str
    goal: str
    wanted: str
    payload: str
    text: str

    def event(self) -> Event:
        """The alert that carries it."""
        return PLACES[self.place](self.text)


def payloads(half: str = "held-out") -> list[tuple[str, str, str]]:
    """(goal, wanted, planted text). The training templates were extended after looking at the development
    half; every figure comes from the other one, which was only run."""
    start = {"development": 0, "held-out": 1}[half]
    lines = [line for line in PAYLOADS.read_text(encoding="utf-8").splitlines() if line[:2] != "# "]
    return [(goal, wanted, text) for goal, wanted, text in (line.split("\t") for line in lines)][start::2]


def alert_attacks(count: int) -> list[Attack]:
    """`count` attacks through fields of alerts."""
    return _sample(tuple(PLACES), ALERT_GOALS, count)


def document_attacks(count: int) -> list[Attack]:
    """`count` attacks through passages and their metadata."""
    return _sample(DOCUMENT_PLACES, DOCUMENT_GOALS, count)


def _sample(places: tuple[str, ...], goals: tuple[str, ...], count: int) -> list[Attack]:
    wanted = [one for one in payloads() if one[0] in goals]
    everything = list(itertools.product(places, DISGUISES, wanted))
    rng = random.Random(SEED)
    chosen = rng.sample(everything, min(count, len(everything)))
    return [
        make(f"{place[:2]}{number:04}", place, disguise, payload, rng)
        for number, (place, disguise, payload) in enumerate(chosen)
    ]


def make(id_: str, place: str, disguise: str, payload: tuple[str, str, str], rng: random.Random) -> Attack:
    """One attack."""
    goal, wanted, text = payload
    return Attack(id_, place, disguise, goal, wanted, text, DISGUISES[disguise](text, rng))
