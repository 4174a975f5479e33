"""A second look at the best passages: what it gains and what it costs, by three ways that need no download.

    python -m tests.bench.rerankers --corpora DIR [--most N]

Late interaction: for each of the question's token vectors the best cosine among the passage's, on average
(Source: ColBERT, Khattab and Zaharia 2020), with the embedder's own token vectors. Likelihood: how well the
base model foretells the question after the passage (Source: Sachan et al. 2022), in log probability a token.
Both reorder the best passages of the fused list, alone or added to its log share with a weight fitted on
other questions.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tests.bench.attack_index import ROOT, arguments, opened
from tests.bench.retrieval_sets import Question
from whis_box.engine import cpu, native
from whis_box.knowledge.embedder import MODEL_FILE
from whis_box.knowledge.retriever import Retriever

DEPTH = 8
MAX_CHARS = 900
N_CTX = 1024
MIXES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

Score = Callable[[str, Sequence[str]], NDArray[np.float64]]


@dataclass(frozen=True)
class Case:
    """One question with its best passages: log shares of the fused list, and which are right."""

    question: str
    passages: list[str]
    shares: NDArray[np.float64]
    right: NDArray[np.bool_]


def main() -> None:
    """Print a table a set."""
    parser = arguments(__doc__)
    parser.add_argument("--base", type=Path, default=ROOT / "build" / "box" / "models" / "base.gguf")
    parser.set_defaults(most=60)
    options = parser.parse_args()
    interaction = LateInteraction(options.embedder)
    ways: dict[str, Score] = {
        "late interaction": interaction.score,
        "likelihood of the question": Likelihood(options.base).score,
    }
    with opened(options.corpora, options.embedder) as (retriever, sets, _):
        for name, questions in sets.items():
            dev = cases(retriever, [one for one in questions if one.is_dev], options.most)
            test = cases(retriever, [one for one in questions if not one.is_dev], options.most)
            table(name, ways, dev, test)


def cases(retriever: Retriever, questions: list[Question], most: int) -> list[Case]:
    """The best passages of different documents for each question that has a right one among them."""
    chosen = random.Random(2).sample(questions, min(most, len(questions)))
    found = []
    for one in chosen:
        best: dict[str, tuple[str, float]] = {}
        for scored in retriever.rank(retriever.prepare(one.text[:2000])).scored:
            hit = retriever.hit(scored)
            text = f"{hit.title}. {hit.chunk.text}"[:MAX_CHARS]
            best.setdefault(hit.chunk.record_id, (text, np.log(max(hit.score, 1e-9))))
            if len(best) == DEPTH:
                break
        right = np.array([record in one.techniques for record in best])
        shares = np.array([share for _, share in best.values()])
        found.append(Case(one.text[:MAX_CHARS], [text for text, _ in best.values()], shares, right))
    return found


class LateInteraction:
    """Token vectors of the embedder in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self._session = onnxruntime.InferenceSession(
            str(folder / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )

    def score(self, question: str, passages: Sequence[str]) -> NDArray[np.float64]:
        """Mean over the question's tokens of the best cosine, (passages,)."""
        asked = self._tokens(question)
        return np.array([float((asked @ self._tokens(one).T).max(axis=1).mean()) for one in passages])

    def _tokens(self, text: str) -> NDArray[np.float32]:
        ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        [hidden] = self._session.run(None, feeds)  # (1, T, H)
        inner = hidden[0, 1:-1]
        return np.asarray(inner / np.linalg.norm(inner, axis=1, keepdims=True), dtype=np.float32)


class Likelihood:
    """The base model's own opinion, straight from libllama."""

    def __init__(self, base: Path) -> None:
        self._lib = native.load()
        cpu.load_backend(self._lib, cpu.choose(base).path)
        self._lib.llama_backend_init()
        self._model = self._lib.llama_model_load_from_file(
            os.fsencode(base), self._lib.llama_model_default_params()
        )
        params = self._lib.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = N_CTX
        params.n_threads = params.n_threads_batch = cpu.thread_count()
        self._context = self._lib.llama_init_from_model(self._model, params)
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self._n_vocab = self._lib.llama_vocab_n_tokens(self._vocab)

    def score(self, question: str, passages: Sequence[str]) -> NDArray[np.float64]:
        """Mean log probability of the question's tokens after each passage, (passages,)."""
        tail = self._tokens(f" {question}")[:96]
        return np.array([self._after(self._tokens(f"Passage: {one}\nAsked:"), tail) for one in passages])

    def _tokens(self, text: str) -> list[int]:
        raw, room = text.encode(), (self._lib.llama_token * N_CTX)()
        count = self._lib.llama_tokenize(self._vocab, raw, len(raw), room, N_CTX, False, False)
        return list(room[: max(count, 0)])

    def _after(self, head: list[int], tail: list[int]) -> float:
        batch = self._lib.llama_batch_init(N_CTX, 0, 1)
        both = head[: N_CTX - len(tail)] + tail
        first = len(both) - len(tail) - 1  # its logits foretell the first token of the question
        for at, token in enumerate(both):
            batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, at, 1
            batch.seq_id[at][0], batch.logits[at] = 0, first <= at < len(both) - 1
        batch.n_tokens = len(both)
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        self._lib.llama_decode(self._context, batch)
        total = 0.0
        for number, token in enumerate(tail):
            row = np.ctypeslib.as_array(
                self._lib.llama_get_logits_ith(self._context, first + number), (self._n_vocab,)
            ).astype(np.float64)
            total += row[token] - row.max() - np.log(np.exp(row - row.max()).sum())
        self._lib.llama_batch_free(batch)
        return total / len(tail)


def table(name: str, ways: dict[str, Score], dev: list[Case], test: list[Case]) -> None:
    """hit@1 and MRR before and after, and milliseconds a question."""
    print(f"\n{name}: {len(test)} questions, the best {DEPTH} documents")
    print(f"  {'fused list as it is':<40} {quality(test, [one.shares for one in test])}")
    for way, score in ways.items():
        values, spent = scored(score, test)
        print(f"  {way + ' alone':<40} {quality(test, values)}  {spent:.0f} ms")
        if not dev:
            continue
        on_dev, _ = scored(score, dev)
        mixed = {
            weight: [weight * value + case.shares for value, case in zip(on_dev, dev, strict=True)]
            for weight in MIXES
        }
        best = max(MIXES, key=lambda weight: reciprocal(dev, mixed[weight]))
        added = [best * value + case.shares for value, case in zip(values, test, strict=True)]
        print(f"  {f'{way} x {best} added':<40} {quality(test, added)}")


def scored(score: Score, cases_: list[Case]) -> tuple[list[NDArray[np.float64]], float]:
    """Scores of each case's passages and the median milliseconds of a question."""
    values, spent = [], []
    for case in cases_:
        started = time.perf_counter()
        values.append(score(case.question, case.passages))
        spent.append((time.perf_counter() - started) * 1000)
    return values, statistics.median(spent)


def places(cases_: list[Case], values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Rank of the first right passage; infinite where none is right."""
    found = []
    for case, value in zip(cases_, values, strict=True):
        right = case.right[np.argsort(-value, kind="stable")]
        found.append(float(right.argmax()) + 1 if right.any() else np.inf)
    return np.array(found)


def reciprocal(cases_: list[Case], values: Sequence[NDArray[np.float64]]) -> float:
    """Mean reciprocal rank."""
    return float(np.mean(1 / places(cases_, values)))


def quality(cases_: list[Case], values: Sequence[NDArray[np.float64]]) -> str:
    """hit@1, hit@3, MRR."""
    found = places(cases_, values)
    return f"hit@1 {np.mean(found <= 1):.3f}  hit@3 {np.mean(found <= 3):.3f}  MRR {np.mean(1 / found):.3f}"


if __name__ == "__main__":
    main()
