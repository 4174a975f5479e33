"""ragas' own metrics, in the virtual environment that holds ragas and nothing of ours.

Run by whis_box/evaluation/ragas_process.py as a script. Lines of JSON on stdin and stdout: a request
{"metric", "sample"} is answered {"value", "error"}; before that the child may ask back {"judge": {"prompt",
"schema"}} (answered {"json"} or {"failed"}) and {"embed": [texts]} (answered {"vectors"}). Opens no socket.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import warnings
from typing import Any

os.environ["RAGAS_DO_NOT_TRACK"] = "true"  # read once, at import
warnings.filterwarnings("ignore")
_OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever a library prints goes to stderr

from ragas import SingleTurnSample  # noqa: E402
from ragas import metrics as legacy  # noqa: E402
from ragas.embeddings.base import BaseRagasEmbedding  # noqa: E402
from ragas.llms.base import InstructorBaseRagasLLM  # noqa: E402
from ragas.metrics import collections  # noqa: E402


def ask_back(message: dict[str, Any]) -> dict[str, Any]:
    """Send one line and wait for its answer."""
    _OUT.write(json.dumps(message) + "\n")
    _OUT.flush()
    reply: dict[str, Any] = json.loads(sys.stdin.readline())
    return reply


class Judge(InstructorBaseRagasLLM):  # type: ignore[misc] # ragas is not in this environment
    """ragas' model, which is whatever the parent judges with."""

    def generate(self, prompt: str, response_model: Any) -> Any:
        """A validated answer; a failed judge raises, and the sample has no score."""
        reply = ask_back({"judge": {"prompt": prompt, "schema": response_model.model_json_schema()}})
        if "failed" in reply:
            raise RuntimeError(reply["failed"])
        return response_model.model_validate_json(reply["json"])

    async def agenerate(self, prompt: str, response_model: Any) -> Any:
        """The same; the parent answers one question at a time."""
        return self.generate(prompt, response_model)


class Embedding(BaseRagasEmbedding):  # type: ignore[misc]
    """ragas' embeddings, which are the box's."""

    def embed_text(self, text: str, **_: Any) -> list[float]:
        """One vector."""
        vector: list[float] = ask_back({"embed": [text]})["vectors"][0]
        return vector

    async def aembed_text(self, text: str, **_: Any) -> list[float]:
        """One vector."""
        return self.embed_text(text)


METRICS: dict[str, Any] = {
    "exact_match": lambda: collections.ExactMatch(),
    "rouge_l": lambda: collections.RougeScore(rouge_type="rougeL", mode="fmeasure"),
    "bleu": lambda: collections.BleuScore(),
    "string_similarity": lambda: collections.NonLLMStringSimilarity(),
    "quoted_spans": lambda: collections.QuotedSpansAlignment(),
    "semantic_similarity": lambda: collections.SemanticSimilarity(embeddings=Embedding()),
    "id_context_precision": lambda: legacy.IDBasedContextPrecision(),
    "id_context_recall": lambda: legacy.IDBasedContextRecall(),
    "faithfulness": lambda: collections.Faithfulness(llm=Judge()),
    "answer_relevancy": lambda: collections.AnswerRelevancy(llm=Judge(), embeddings=Embedding()),
    "context_precision": lambda: collections.ContextPrecisionWithReference(llm=Judge()),
    "context_recall": lambda: collections.ContextRecall(llm=Judge()),
}


async def score(name: str, sample: dict[str, Any]) -> float:
    """One metric of one sample, by ragas."""
    metric = METRICS[name]()
    if name.startswith("id_"):
        return float(await metric.single_turn_ascore(SingleTurnSample(**sample)))
    return float((await metric.ascore(**sample)).value)


def main() -> int:
    """Answer requests until the pipe closes."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            value: float | None = asyncio.run(score(request["metric"], request["sample"]))
            error = ""
        except (ValueError, RuntimeError, AssertionError, TypeError, KeyError) as cause:
            value, error = None, f"{type(cause).__name__}: {cause}"
        if value is not None and math.isnan(value):
            value, error = None, "ragas answered NaN"
        _OUT.write(json.dumps({"value": value, "error": error}) + "\n")
        _OUT.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
