"""The people-finder: a small token classifier for what has no form, such as names and postal addresses.

Invariant: nothing is fetched; the same text gives the same spans whatever stands in other texts; spans follow
word borders; names of malware, tools and groups (not_people.txt) are never people. How the model is made:
train/ner.py; what it can do: data/ner/README.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors
from pydantic import Field, ValidationError
from tokenizers import Tokenizer

from whis_box.config import describe_validation
from whis_box.errors import NotReadyError, VerificationError
from whis_box.ingest.sanitize.pieces import SPECIAL_SHAPE, Pieces, encode, windows
from whis_box.ingest.sanitize.spans import Span
from whis_box.paths import read_text
from whis_box.schemas import Frozen

FILES = ("model.onnx", "tokenizer.json", "ner.json", "not_people.txt")
# Digits of a number that is somebody's. Source: ISO/IEC 7812 (12 to 19), ISO 13616 (15 to 34 characters).
MIN_DIGITS = {"CREDIT_CARD": 12, "IBAN_CODE": 10, "NATIONAL_ID": 6, "PHONE_NUMBER": 6}
GLUE = set("\\/@[]{}|*+_")  # beside a word: part of a path, an address or a pattern
_LOAD_ERRORS = (
    onnx_errors.Fail,
    onnx_errors.InvalidArgument,
    onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf,
    onnx_errors.RuntimeException,
)


class NerSettings(Frozen):
    """ner.json beside the model."""

    labels: list[str] = Field(min_length=3)
    """"O", then "B-TYPE" and "I-TYPE" for each type, in the order of the model's output."""
    thresholds: dict[str, float]
    """Least mean probability of a span, by type; chosen on the validation templates."""
    cls_id: int
    sep_id: int


class PeopleFinder:
    """Names, organisations, places, addresses and so on. Not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        """Load the model in `folder`.

        Raises: NotReadyError if a file is missing; VerificationError if it does not load.
        """
        for name in FILES:
            if not (folder / name).is_file():
                raise NotReadyError(f"{folder / name}: missing; restore data/ner or name another model")
        try:
            self._settings = NerSettings.model_validate_json((folder / "ner.json").read_bytes())
        except ValidationError as cause:
            raise VerificationError(describe_validation(str(folder / "ner.json"), cause)) from None
        self._not_people: dict[str, list[str]] = {}
        for line in read_text(folder / "not_people.txt").lower().splitlines():
            for word in line.split():
                self._not_people.setdefault(word, []).append(line.strip())
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # an import scales over processes
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except _LOAD_ERRORS as cause:
            raise VerificationError(
                f"{folder / 'model.onnx'}: does not load ({cause}); restore data/ner"
            ) from None

    @property
    def entity_types(self) -> list[str]:
        """What it can find."""
        return sorted({label[2:] for label in self._settings.labels if label != "O"})

    def find(self, text: str) -> Iterator[Span]:
        """Spans in text order that reach their type's threshold; `score` is the mean probability."""
        for window in windows(encode(self._tokenizer, text), text):
            for span in self._decode(window, self._probabilities(window)):
                least = self._settings.thresholds.get(span.entity_type, 0.5)
                if span.score >= least and self._can_be(span, text):
                    yield span

    def _can_be(self, span: Span, text: str) -> bool:
        """What no threshold should decide: tools are no people, parts of paths and patterns no names, and a
        number that identifies somebody has enough digits and stands on one line."""
        value, before = text[span.start : span.end], text[max(0, span.start - 1) : span.start]
        glued = set(before + text[span.end : span.end + 1]) & GLUE
        digits = MIN_DIGITS.get(span.entity_type)
        if digits is not None:
            enough = sum(one.isdigit() for one in value) >= digits
            return enough and not glued and before != "." and "\n" not in value
        if span.entity_type == "STREET_ADDRESS":
            return any(one.isdigit() for one in value) and not self._in_known_name(span, text)
        if span.entity_type != "PERSON":
            return True
        named = text[span.end : span.end + 1] == "." and text[span.end + 1 : span.end + 2].isalnum()  # a file
        plain = " " not in value and value.islower() and not text.islower()  # a word that only looks like one
        plain = plain or (before == "(" and value.isalpha() and value.isupper())  # (SAM): an abbreviation
        return len(value) > 2 and not (glued or named or plain) and not self._in_known_name(span, text)

    def _in_known_name(self, span: Span, text: str) -> bool:
        """Whether the span lies in a name that is nobody's: `Tesla` in `Agent Tesla`."""
        for word in text[span.start : span.end].lower().split():
            for name in self._not_people.get(word, ()):
                around = text[max(0, span.start - len(name)) : span.end + len(name)].lower()
                if name in around:
                    return True
        return False

    def _probabilities(self, window: Pieces) -> NDArray[np.float32]:
        """(pieces, labels), without the special pieces. One window at a time: dynamic int8 takes its ranges
        from the whole batch, so in a larger one a text would depend on its neighbours."""
        ids = [self._settings.cls_id, *window.ids, self._settings.sep_id]
        feeds = {
            "input_ids": np.array([ids], dtype=np.int64),
            "attention_mask": np.ones((1, len(ids)), dtype=np.int64),
            "token_type_ids": np.array([[SPECIAL_SHAPE, *window.shapes, SPECIAL_SHAPE]], dtype=np.int64),
        }
        [logits] = self._session.run(None, feeds)  # (1, T, labels)
        inner = logits[0, 1:-1]
        exponents = np.exp(inner - inner.max(axis=1, keepdims=True))
        return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), dtype=np.float32)

    def _decode(self, window: Pieces, probabilities: NDArray[np.float32]) -> Iterator[Span]:
        """Words of one type in a row are one span, unless the first piece of a word says that one begins."""
        by_type = probabilities[:, 1:].reshape(len(window.ids), -1, 2)  # (pieces, types, B and I)
        words = np.array(window.words)
        firsts = np.flatnonzero(np.diff(words, prepend=words[0] - 1))
        counts = np.diff(firsts, append=len(words))
        of_word = np.add.reduceat(by_type.sum(axis=2), firsts, axis=0) / counts[:, None]  # (words, types)
        outside = np.add.reduceat(probabilities[:, 0], firsts) / counts
        best = of_word.argmax(axis=1)
        inside = of_word.max(axis=1) > outside
        current: list[tuple[int, int, float]] = []
        current_type = -1
        for number, at in enumerate(firsts):
            kind = int(best[number]) if inside[number] else -1
            begins = kind >= 0 and by_type[at, kind, 0] > by_type[at, kind, 1]
            if kind != current_type or begins:
                yield from self._span(current_type, current)
                current, current_type = [], kind
            if kind >= 0:
                current.append((*window.spans[at], float(of_word[number, kind])))
        yield from self._span(current_type, current)

    def _span(self, kind: int, words: list[tuple[int, int, float]]) -> Iterator[Span]:
        if words:
            score = sum(one[2] for one in words) / len(words)
            entity_type = self._settings.labels[1 + 2 * kind][2:]
            yield Span(entity_type, words[0][0], words[-1][1], round(min(score, 1.0), 4), "people_finder")
