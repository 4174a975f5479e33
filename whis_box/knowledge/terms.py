"""Words as retrieval counts them: lower case, stemmed, stop words out, identifiers and paths whole.

Invariant: the same function reads documents, questions and the model's sentences, so overlaps are comparable.
"""

from __future__ import annotations

import re
from functools import lru_cache

from py_rust_stemmers import SnowballStemmer

_TOKEN = re.compile(r"[A-Za-z0-9$%][A-Za-z0-9$%_.:\\/-]*[A-Za-z0-9$%]|[A-Za-z0-9]")
_WORD = re.compile(r"[A-Za-z]+|\d+")
_SEPARATOR = re.compile(r"[\\/]")
_PLAIN = re.compile(r"[a-z]+(?:'[a-z]+)?")
_STEMMER = SnowballStemmer("english")

_STOP_TEXT = """
    a about after all also am an and any anybody anyone anything are as at bad be because been before
    being better between big both but by can could did difference do does doing done during each earlier
    either else even ever every everything explain few for from further get gets give given go goes good
    got guy had happen happened happens has have having he her here him his how i if in into is it its
    itself just kind know let like look make many may me mean meaning means might mine more most much must
    my near need no nor not nothing now of off ok okay on once one only onto or other our out over own per
    please possible really same say see seen she should show shown so some somebody someone something
    sometimes stuff such tell tells than that the their them then there these they thing things this those
    through thus to today told too under until up upon us use used uses using usually very want was way we
    well went were what whats when where whether which while who whom whose why will with within without
    would wrong yes you your
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())


def tokens(text: str) -> list[str]:
    """Lower-case tokens; `rundll32.exe`, `T1003.001` and `HKLM\\Software` stay whole."""
    return [token.lower() for token in _TOKEN.findall(text)]


def terms(text: str) -> list[str]:
    """Content terms in order, with repeats; a compound token also gives its parts."""
    found: list[str] = []
    for token in tokens(text):
        if _PLAIN.fullmatch(token):
            if token not in STOP_WORDS:
                found.append(stem(token))
            continue
        found.append(token)
        segments = [segment for segment in _SEPARATOR.split(token) if segment and segment != token]
        found.extend(segment for segment in segments if not _PLAIN.fullmatch(segment))
        parts = [part for part in _WORD.findall(token) if part != token]
        found.extend(stem(part) for part in parts if len(part) > 1 and part not in STOP_WORDS)
    return found


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """English Snowball stem of a lower-case word; numbers are unchanged."""
    return str(_STEMMER.stem_word(word)) if word.isalpha() else word
