"""One text through the policy: what is found is replaced, logged without its value, or refuses the record.

Invariant: the log never holds an original value; positions in it are of the sanitized text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from whis_box.ingest.sanitize.policy import Action, PolicyConfig
from whis_box.ingest.sanitize.pseudonyms import Pseudonyms
from whis_box.ingest.sanitize.spans import Span, replaced
from whis_box.schemas import Frozen


class Redaction(Frozen):
    """One line of the redaction log."""

    record_id: str
    entity_type: str
    start: int
    end: int
    action: Action
    recognizer: str
    score: float
    token: str
    """Keyed HMAC of the value: equal values have equal tokens."""


@dataclass(frozen=True)
class Redacted:
    """The text without what was found; `refused_for` names the entity type that forbids the record, or ""."""

    text: str
    log: list[Redaction]
    counts: dict[str, int]
    refused_for: str


def redact(
    record_id: str, text: str, spans: Sequence[Span], policy: PolicyConfig, pseudonyms: Pseudonyms
) -> Redacted:
    """Apply `policy` to the resolved `spans` of `text`."""
    tokens: list[str] = []

    def replacement(span: Span, value: str) -> str:
        tokens.append(pseudonyms.token(span.entity_type, value))
        action = policy.action(span.entity_type)
        if action == "pseudonymize":
            return pseudonyms.name(span.entity_type, value) + _kept_part(span.entity_type, value, policy)
        return "" if action == "drop" else f"[{span.entity_type}]"

    new_text, placed = replaced(text, spans, replacement)
    log = [
        Redaction(
            record_id=record_id,
            entity_type=span.entity_type,
            start=span.start,
            end=span.end,
            action=policy.action(span.entity_type),
            recognizer=span.recognizer,
            score=round(span.score, 3),
            token=token,
        )
        for span, token in zip(placed, tokens, strict=True)
    ]
    refusing = [span.entity_type for span in spans if policy.action(span.entity_type) == "reject"]
    counts = dict(sorted(Counter(span.entity_type for span in spans).items()))
    return Redacted(new_text, log, counts, refusing[0] if refusing else "")


def _kept_part(entity_type: str, value: str, policy: PolicyConfig) -> str:
    """The domain of a mail address of the outside world is an indicator, not a person."""
    domain = value.rpartition("@")[2] if entity_type == "EMAIL_ADDRESS" else ""
    return (
        f"@{domain}" if domain and domain.rpartition(".")[2].lower() not in policy.internal_suffixes else ""
    )
