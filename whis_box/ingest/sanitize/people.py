"""Which model finds people: the box's own, with a larger spaCy pipeline for names where one is installed.

Invariant: nothing is fetched; a pipeline that is not installed is not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import spacy

from whis_box.ingest.sanitize.ner import PeopleFinder
from whis_box.ingest.sanitize.policy import PolicyConfig
from whis_box.ingest.sanitize.spans import Span

# Names as spaCy's English pipelines label them.
_SPACY_TYPES = {
    "PERSON": "PERSON",
    "ORG": "ORGANIZATION",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "NORP": "NRP",
}
_SPACY_SCORE = 0.85  # spaCy gives none; its accuracy on names is about that

Find = Callable[[str], Iterator[Span]]


def people_finder(policy: PolicyConfig) -> Find:
    """The finder that `policy` names.

    Raises: NotReadyError or VerificationError for the own model.
    """
    if policy.people_model == "none":
        return lambda text: iter(())
    own = PeopleFinder(Path(policy.people_model))
    larger = next((name for name in policy.larger_models if _is_installed(name)), None)
    return own.find if larger is None else _with_larger(own.find, larger)


def _is_installed(name: str) -> bool:
    return spacy.util.is_package(name) or (Path(name) / "meta.json").is_file()


def _with_larger(own: Find, name: str) -> Find:
    pipeline = spacy.load(name, exclude=["lemmatizer"])
    replaced = set(_SPACY_TYPES.values())

    def find(text: str) -> Iterator[Span]:
        for entity in pipeline(text).ents:
            if entity.label_ in _SPACY_TYPES:
                kind = _SPACY_TYPES[entity.label_]
                yield Span(kind, entity.start_char, entity.end_char, _SPACY_SCORE, name)
        yield from (span for span in own(text) if span.entity_type not in replaced)

    return find
