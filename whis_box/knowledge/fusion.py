"""One order from five lists: a linear score over ranks, cosines and titles, softmaxed over what was found.

Invariant: only found chunks are scored; a score is a share, 0..1, best first. There is one set of weights for
questions and one for statements, fitted on development data (`python -m tests.bench.retrieval_weights`). With
the weights of ranks alone this is weighted reciprocal rank fusion. Source: Cormack et al. 2009.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from whis_box.config import FusionWeights
from whis_box.knowledge.lists import NAMES, Found
from whis_box.knowledge.terms import tokens

Kind = Literal["question", "statement"]
Values = NDArray[np.float64]
FEATURES = (*NAMES, "chunk_cosine", "sentence_cosine", "record_cosine", "title")
BEST_SENTENCES = 8  # of a record, whose mean cosine says that the record as a whole is about the question
SHORT = 6  # tokens up to which a text without a question mark counts as typed into a search box
_ASKING = re.compile(
    r"\?|^\W*(?:what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|can|could|should|"
    r"would|will|may|must|has|have|list|name|show|tell|give|explain|describe|define|compare)\b",
    re.IGNORECASE,
)


def kind_of(text: str) -> Kind:
    """Whether somebody asks, or something is told: a report's sentence, a rule's description, an event."""
    return "question" if _ASKING.search(text) or len(tokens(text)) <= SHORT else "statement"


def features(
    found: Found,
    rowids: Sequence[int],
    cosines: Mapping[int, float],
    record_of: Mapping[int, str],
    titles: Mapping[int, float],
    rrf_k: float,
) -> Values:
    """(len(rowids), len(FEATURES)), in the order of FEATURES.

    Ranks count as 1 / (rrf_k + rank), 0 outside a list. `cosines` are of the chunks, `titles` the share of
    each title's words that the question uses; what they leave out counts 0. A sentence that was not found
    counts as similar as the last one that was. Without `record_of` the record's cosine is 0.
    """
    floor = found.sentence_cosines[-1][1] if found.sentence_cosines else 0.0
    best: dict[int, float] = {}
    of_record: dict[str, list[float]] = defaultdict(list)
    for rowid, cosine in found.sentence_cosines:
        best.setdefault(rowid, cosine)
        if record_of:
            of_record[record_of[rowid]].append(cosine)
    shares = [
        {rowid: 1.0 / (rrf_k + rank) for rank, rowid in enumerate(found.lists[name], start=1)}
        for name in NAMES
    ]
    rows = []
    for rowid in rowids:
        mean = 0.0
        if record_of:
            sentences = (of_record[record_of[rowid]] + [floor] * BEST_SENTENCES)[:BEST_SENTENCES]
            mean = sum(sentences) / BEST_SENTENCES
        places = (share.get(rowid, 0.0) for share in shares)
        rows.append((*places, cosines.get(rowid, 0.0), best.get(rowid, floor), mean, titles.get(rowid, 0.0)))
    return np.array(rows, dtype=np.float64).reshape(len(rowids), len(FEATURES))


def weights_of(chosen: FusionWeights) -> Values:
    """(len(FEATURES),)."""
    return np.array([getattr(chosen, name) for name in FEATURES], dtype=np.float64)


def shares(values: Values, weights: Values) -> Values:
    """Softmax of the linear scores, (n,)."""
    scores = values @ weights
    exponents = np.exp(scores - scores.max(initial=-np.inf))
    result: Values = exponents / max(exponents.sum(), 1e-300)
    return result
