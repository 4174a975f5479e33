"""The options of a prompt, each with whether it is right: asked in training only.

A completion says in one token which of eight facts answers; that is little to learn from. So in training the
model is also asked behind every option, which it has just read with the question in mind, whether this is it.
Source: pointwise relevance labels as in monoT5, Nogueira et al. 2020, here as an auxiliary loss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from train.dataset_tasks import Example
from whis_box.prompts import parse_answer, parse_triage

RIGHT, WRONG = " yes", " no"
_FACT = re.compile(r"^\[(\d+)\] .*$", re.MULTILINE)
_TECHNIQUE = re.compile(r"^(T\d{4}(?:\.\d{3})?|none)\b.*$", re.MULTILINE)
USER = 3
"""The segment that holds the options, see whis_box.prompts.chat."""

Tokenize = Callable[[Sequence[tuple[str, bool]]], list[int]]


@dataclass(frozen=True)
class Judged:
    """One option of a tokenized prompt."""

    position: int
    """Of its last token."""
    target: int
    """The token that says whether it is right."""
    weight: float
    """Its share in the loss of its sample; right and wrong options weigh the same together."""


def judged_options(example: Example, tokenize: Tokenize, share: float) -> tuple[Judged, ...]:
    """The options of `example`, whose weights sum to `share`; none for an example that offers none."""
    ends = _ends(example)
    if not ends:
        return ()
    before, (body, trusted) = example.segments[:USER], example.segments[USER]
    yes, no = tokenize([(RIGHT, False)])[0], tokenize([(WRONG, False)])[0]
    n_right = sum(is_right for _, is_right in ends)
    groups = (n_right > 0) + (n_right < len(ends))
    made = []
    for end, is_right in ends:
        position = len(tokenize([*before, (body[:end], trusted)])) - 1
        n_alike = n_right if is_right else len(ends) - n_right
        made.append(Judged(position, yes if is_right else no, share / groups / n_alike))
    return tuple(made)


def _ends(example: Example) -> list[tuple[int, bool]]:
    """Where each option's line ends in the user's text, and whether it is right."""
    body = example.segments[USER][0]
    if example.task == "triage":
        chosen, _ = parse_triage(example.completion)
        listed = body.rpartition("Techniques:\n")
        start = len(listed[0]) + len(listed[1])
        return [(one.end(), one[1] == chosen) for one in _TECHNIQUE.finditer(body, start)]
    right = {number for number, _ in parse_answer(example.completion, "select")}
    return [(one.end(), int(one[1]) in right) for one in _FACT.finditer(body)]
