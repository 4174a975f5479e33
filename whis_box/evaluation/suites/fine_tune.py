"""What training changed, on held-out samples, from the GGUF files that are served.

`perplexity_ratio` is adapter over base: above 1 the adapter expects the right completions less than the
base does, which is what overfitting looks like from outside. The loss curve is the curve.ndjson that
`train.lora` wrote beside the adapter: {"step", "loss", and "val_loss" where it was taken} in each line.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ValidationError

from whis_box.config import describe_validation
from whis_box.errors import InputError
from whis_box.evaluation.evidence import Evidence
from whis_box.evaluation.heldout import Scored
from whis_box.evaluation.metrics import classes
from whis_box.evaluation.metrics.intervals import paired_bootstrap
from whis_box.evaluation.results import Row, SuiteResult, not_measured, plain, share
from whis_box.paths import read_text

NEEDS = ("heldout",)
FIGURES = ("heldout_loss", "heldout_perplexity", "decision_accuracy", "decision_macro_f1")
CITES = "a fact"


class Step(BaseModel):
    """What is read of one point of a loss curve."""

    step: int
    loss: float
    val_loss: float | None = None


def score(evidence: Evidence) -> SuiteResult:
    """Figures of the subject, and of its base beside it where there is an adapter."""
    mine = _scored(evidence, "heldout")
    if not mine:
        reason = "data/datasets holds no test split; run `make dataset`"
        names = [*FIGURES, "perplexity_ratio", "decision_gain"]
        return SuiteResult(suite="fine_tune", rows=[not_measured(name, reason) for name in names])
    rows = _figures("", mine)
    base = _scored(evidence, "heldout_base")
    per_item = {
        "decision": {one.id: float(one.expected == one.predicted) for one in mine},
        "loss": {one.id: one.nll / one.n_tokens for one in mine},
    }
    if base:
        rows += [*_figures("base_", base), *_against(base, mine)]
    else:
        reason = "the subject has no adapter"
        rows += [not_measured(name, reason) for name in ("perplexity_ratio", "decision_gain")]
    curve = _curve(evidence.adapter)
    plots = {"loss_curve": curve} if curve else {}
    notes = [] if curve else ["loss curve: not measured: no curve.ndjson beside the adapter"]
    return SuiteResult(suite="fine_tune", rows=rows, per_item=per_item, plots=plots, notes=notes)


def _scored(evidence: Evidence, kind: str) -> list[Scored]:
    found = [one for (of, _), one in evidence.seen.items() if of == kind]
    return [Scored(**json.loads(one.text)) for one in found if one.text is not None]


def as_text(one: Scored) -> str:
    """How a scored sample stands in the journal."""
    return json.dumps(asdict(one))


def _figures(prefix: str, scored: list[Scored]) -> list[Row]:
    loss = sum(one.nll for one in scored) / sum(one.n_tokens for one in scored)
    expected, predicted = [_kind(one.expected) for one in scored], [_kind(one.predicted) for one in scored]
    return [
        plain(f"{prefix}heldout_loss", loss, len(scored), "lower"),
        plain(f"{prefix}heldout_perplexity", math.exp(loss), len(scored), "lower"),
        share(f"{prefix}decision_accuracy", [one.expected == one.predicted for one in scored]),
        plain(f"{prefix}decision_macro_f1", classes.macro_f1_single(expected, predicted), len(scored)),
    ]


def _kind(decision: str) -> str:
    """Numbers name a place in one prompt, not a class: they count as one."""
    return CITES if decision.startswith("[") else decision


def _against(base: list[Scored], mine: list[Scored]) -> list[Row]:
    other = {one.id: one for one in base}
    pairs = [(other[one.id], one) for one in mine if one.id in other]
    mean_loss = [sum(one[k].nll for one in pairs) / sum(one[k].n_tokens for one in pairs) for k in (0, 1)]
    right = [[float(one[k].expected == one[k].predicted) for one in pairs] for k in (0, 1)]
    gain = paired_bootstrap(right[0], right[1])
    return [
        plain("perplexity_ratio", math.exp(mean_loss[1] - mean_loss[0]), len(pairs), "lower"),
        Row(
            name="decision_gain",
            value=gain.difference,
            n=len(pairs),
            low=gain.interval.low,
            high=gain.interval.high,
        ),
    ]


def _curve(adapter: Path | None) -> list[dict[str, float | int | None]]:
    if adapter is None or not (adapter.parent / "curve.ndjson").is_file():
        return []
    path = adapter.parent / "curve.ndjson"
    try:
        return [Step.model_validate_json(line).model_dump() for line in read_text(path).splitlines()]
    except ValidationError as cause:
        raise InputError(describe_validation(str(path), cause)) from None
