"""The draft of an answer as it may be shown while it is written: whole sentences, each bound and checked.

Invariant: a sentence is shown only if the passage that it cites carries it and the last look at what leaves
lets it pass; a line that is not finished is held back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from whis_box.guards.binding import carried
from whis_box.guards.output import harmless
from whis_box.knowledge.evidence import EvidenceSentence
from whis_box.knowledge.terms import terms
from whis_box.prompts import AnswerStyle, parse_answer

MayLeave = Callable[[Sequence[str], Sequence[str]], bool]
"""Whether sentences, with the quotes that carry each, may be shown together."""


class AnswerDraft:
    """Takes the model's deltas, gives whole checked sentences to `on_text`, each once."""

    def __init__(
        self,
        style: AnswerStyle,
        evidence: Sequence[EvidenceSentence],
        idf: Callable[[set[str]], Mapping[str, float]],
        min_support: float,
        may_leave: MayLeave,
        on_text: Callable[[str], None],
    ) -> None:
        self._style, self._evidence, self._idf = style, evidence, idf
        self._min_support, self._may_leave, self._on_text = min_support, may_leave, on_text
        self._written = ""
        self._read = 0
        self._shown: list[str] = []
        self._quotes: list[str] = []

    def __call__(self, delta: str) -> None:
        """More of what the model writes."""
        self._written += delta
        finished = parse_answer(self._written, self._style)
        for number, text in finished[self._read :]:
            self._show(number, text)
        self._read = len(finished)

    def _show(self, number: int, text: str) -> None:
        found = carried(number, text, self._evidence, self._idf(set(terms(text))), self._min_support)
        if found is None:
            return
        sentence, quote = harmless(" ".join(found[0].split())), found[1].text
        if sentence in self._shown or not self._may_leave([*self._shown, sentence], [*self._quotes, quote]):
            return
        self._on_text(f"{' ' if self._shown else ''}{sentence}")
        self._shown.append(sentence)
        self._quotes.append(quote)
