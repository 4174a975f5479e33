"""Is a sentence carried by what it cites, and is a quote really the record's text?

Invariant: a number, identifier or code in a sentence that its citations do not hold makes its support 0.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from whis_box.errors import VerificationError
from whis_box.knowledge.terms import STOP_WORDS, terms, tokens
from whis_box.schemas import Citation, Record

_NEGATION = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|cannot|unless|except|only|n't|rarely|instead)\b|n't\b",
    re.IGNORECASE,
)
_CODE = re.compile(r"\d|[\\_$%]|\.[a-z]")
# Words that join facts without adding one.
_CONNECTIVES = frozenset(
    {"mean", "contain", "includ", "refer", "call", "name", "event", "log", "answer", "question"}
)


def support(claim: str, cited: Sequence[str], idf: Mapping[str, float]) -> float:
    """How far `cited` carry `claim`, 0..1.

    1.0 when one cited sentence holds all of the claim's content words in the same order, which is what
    shortening a sentence gives. Words out of order, or from several sentences, earn at most 0.5: a small
    model recombines true words into false statements. A code or number from nowhere, or a changed negation,
    gives 0.
    """
    wanted = [term for term in terms(claim) if term not in _CONNECTIVES]
    if not wanted or not cited:
        return 0.0
    if unknown_codes(claim, cited):
        return 0.0
    best = max(_support_by_one(wanted, claim, sentence, idf) for sentence in cited)
    if best == 1.0 or len(cited) == 1:
        return best
    everything = {term for sentence in cited for term in terms(sentence)}
    return max(best, 0.5 * _share(wanted, everything, idf))


def unknown_codes(text: str, sources: Iterable[str]) -> list[str]:
    """Tokens of `text` that look like data (digits, paths, file names) and stand in none of `sources`."""
    known: set[str] = set()
    for source in sources:
        known.update(tokens(source))
        known.update(terms(source))
    return [token for token in dict.fromkeys(tokens(text)) if _CODE.search(token) and token not in known]


def _support_by_one(wanted: Sequence[str], claim: str, sentence: str, idf: Mapping[str, float]) -> float:
    available = terms(sentence)
    share = _share(wanted, set(available), idf)
    if share < 1.0:
        return share * 0.99
    if _negations(claim) != _negations(sentence) and not _verbatim(claim, sentence):
        return 0.0
    return 1.0 if _in_order(wanted, available) else 0.5


def _share(wanted: Sequence[str], available: set[str], idf: Mapping[str, float]) -> float:
    weights = {term: idf.get(term, 1.0) for term in wanted}
    return sum(weight for term, weight in weights.items() if term in available) / sum(weights.values())


def _in_order(wanted: Sequence[str], available: Sequence[str]) -> bool:
    """Whether `wanted` is a subsequence of `available`."""
    rest = iter(available)
    return all(term in rest for term in wanted)


def _negations(text: str) -> list[str]:
    return sorted(match.group().lower() for match in _NEGATION.finditer(text))


def _verbatim(claim: str, sentence: str) -> bool:
    return " ".join(claim.split()).rstrip(".") in " ".join(sentence.split())


def check_citation(citation: Citation, record: Record) -> None:
    """Compare a quote with the record it names.

    Raises: VerificationError when offsets, text or hash disagree; such an answer must not leave the box.
    """
    actual = record.text[citation.start : citation.end]
    digest = hashlib.sha256(actual.encode()).hexdigest()
    if actual != citation.quote or digest != citation.sha256 or citation.record_id != record.id:
        raise VerificationError(
            f"record {citation.record_id}: the quote at {citation.start}..{citation.end} is not its text; "
            "the index is damaged, build it again or copy the box again"
        )


def content_words(text: str) -> int:
    """Number of words that are not stop words."""
    return sum(token not in STOP_WORDS for token in tokens(text))
