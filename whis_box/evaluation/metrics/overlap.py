"""How far a response says the words of its reference.

Invariant: every score is 0..1, the same text gives 1.0, an empty response gives 0.
Sources: Rajpurkar et al. 2016 (SQuAD: exact match, token F1); Lin 2004 as in rouge-score 0.1.2; Papineni
et al. 2002 as in sacrebleu 2.x (tokenizer 13a, exponential smoothing).
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NOT_ROUGE = re.compile(r"[^a-z0-9]+")
MAX_BLEU_ORDER = 4
MIN_STEMMED = 4  # rouge-score stems words of more than three letters

Stem = Callable[[str], str]


def normalized(text: str) -> str:
    """SQuAD's form: lower case, no punctuation, no articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(response: str, reference: str) -> float:
    """1.0 if both are the same in SQuAD's form."""
    return float(normalized(response) == normalized(reference))


def token_f1(response: str, reference: str) -> float:
    """Harmonic mean of the precision and recall of words in SQuAD's form."""
    mine, theirs = normalized(response).split(), normalized(reference).split()
    if not mine or not theirs:
        return float(mine == theirs)
    shared = sum((Counter(mine) & Counter(theirs)).values())
    return _f1(shared / len(mine), shared / len(theirs))


def rouge_l(response: str, reference: str, stem: Stem | None = None) -> float:
    """F1 of the longest common subsequence of words (rougeL); `stem` gives rouge-score's `use_stemmer`."""
    mine, theirs = _rouge_tokens(response, stem), _rouge_tokens(reference, stem)
    if not mine or not theirs:
        return 0.0
    common = _common_subsequence(mine, theirs)
    return _f1(common / len(mine), common / len(theirs))


def _rouge_tokens(text: str, stem: Stem | None) -> list[str]:
    words = _NOT_ROUGE.sub(" ", text.lower()).split()
    return [stem(word) if stem is not None and len(word) >= MIN_STEMMED else word for word in words]


def _common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, by rows of bits (Hyyro 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << place
    full = (1 << len(left)) - 1
    row = full
    for word in right:
        matches = places.get(word, 0) & row
        row = ((row + matches) | (row - matches)) & full
    return len(left) - row.bit_count()


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


# ---------------------------------------------------------------- BLEU


def corpus_bleu(responses: Sequence[str], references: Sequence[str]) -> float:
    """Corpus BLEU with one reference each, 0..1 (sacrebleu prints 0..100)."""
    return _bleu(
        [(_tokens_13a(a), _tokens_13a(b)) for a, b in zip(responses, references, strict=True)], False
    )


def sentence_bleu(response: str, reference: str) -> float:
    """BLEU of one sentence up to the order that it is long enough for (sacrebleu's effective order)."""
    return _bleu([(_tokens_13a(response), _tokens_13a(reference))], True)


def _bleu(pairs: Sequence[tuple[list[str], list[str]]], effective_order: bool) -> float:
    correct, total = [0] * MAX_BLEU_ORDER, [0] * MAX_BLEU_ORDER
    for mine, theirs in pairs:
        for order in range(MAX_BLEU_ORDER):
            own, other = _ngrams(mine, order + 1), _ngrams(theirs, order + 1)
            correct[order] += sum((own & other).values())
            total[order] += sum(own.values())
    mine_length = sum(len(mine) for mine, _ in pairs)
    theirs_length = sum(len(theirs) for _, theirs in pairs)
    if not any(correct):
        return 0.0
    brevity = 1.0 if mine_length >= theirs_length else math.exp(1 - theirs_length / mine_length)
    precisions, smoothing, reached = [0.0] * MAX_BLEU_ORDER, 1.0, 0
    for order in range(MAX_BLEU_ORDER):
        if total[order] == 0:
            break
        reached = order + 1
        if correct[order] == 0:
            smoothing *= 2
            precisions[order] = 100 / (smoothing * total[order])
        else:
            precisions[order] = 100 * correct[order] / total[order]
    used = precisions[: reached if effective_order else MAX_BLEU_ORDER]
    if min(used) <= 0.0:
        return 0.0
    return brevity * math.exp(sum(math.log(one) for one in used) / len(used)) / 100


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[at : at + n]) for at in range(len(tokens) - n + 1))


_13A = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


def _tokens_13a(text: str) -> list[str]:
    """mteval-v13a's tokens, as sacrebleu cuts them."""
    line = text.rstrip().replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    if "&" in line:
        for entity, character in _ENTITIES:
            line = line.replace(entity, character)
    line = f" {line} "
    for pattern, spaced in _13A:
        line = pattern.sub(spaced, line)
    return line.split()


# ------------------------------------------------------------- characters


def string_similarity(response: str, reference: str) -> float:
    """1 minus the Levenshtein distance as a share of the longer text (ragas NonLLMStringSimilarity)."""
    longest = max(len(response), len(reference))
    return 1.0 - _levenshtein(response, reference) / longest if longest else 1.0


def _levenshtein(left: str, right: str) -> int:
    """Edit distance by rows of bits (Hyyro 2003): each step keeps a column's +1 and -1 differences."""
    if not left or not right:
        return max(len(left), len(right))
    places: dict[str, int] = {}
    for place, character in enumerate(left):
        places[character] = places.get(character, 0) | 1 << place
    full, top = (1 << len(left)) - 1, 1 << (len(left) - 1)
    rising, falling, distance = full, 0, len(left)
    for character in right:
        matches = places.get(character, 0)
        diagonal = (((matches & rising) + rising) ^ rising) | matches | falling
        up = (falling | ~(diagonal | rising)) & full
        down = rising & diagonal
        distance += int(bool(up & top)) - int(bool(down & top))
        up = (up << 1 | 1) & full
        rising = (down << 1 | ~(diagonal | up)) & full
        falling = up & diagonal
    return distance
