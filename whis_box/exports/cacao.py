"""A CACAO 2.0 playbook that proposes what a person could do: every command is of type `manual`.

Invariant: no step holds a command that a machine could execute, and no step is the model's own words.
Source: OASIS CACAO Security Playbooks 2.0, Committee Specification 01 (27 November 2023).
"""

from __future__ import annotations

from typing import Any

from whis_box.exports.case import PRODUCT, Case, stable_id, technique_url, timestamp
from whis_box.schemas import Step

# Source: CACAO 2.0 section 3.1, `severity` from 0 (not specified) to 100 (highest).
SEVERITIES = {"informational": 10, "low": 25, "medium": 50, "high": 75, "critical": 100}
MAX_NAME_CHARS = 80


def playbook(case: Case) -> dict[str, Any]:
    """Checks first, then the first steps, in the documents' order, one manual action each."""
    triage, made_at = case.triage, timestamp(case.made_at)
    analyst = stable_id("individual", PRODUCT, "analyst")
    steps = [("Check", one) for one in triage.false_positive_checks]
    steps += [("Step", one) for one in triage.recommended_steps]
    return {
        "type": "playbook",
        "spec_version": "cacao-2.0",
        "id": case.object_id("playbook", triage.id),
        "name": f"Proposal: {case.title}"[:200],
        "description": (
            f"Proposed by {PRODUCT} for alert {triage.alert_id}: {triage.verdict}, {triage.severity}. "
            f"Nothing here has been done or will be done by itself: a person reads and decides each step."
        ),
        "playbook_types": ["investigation"],
        "playbook_activities": ["analyze-collected-data", "identify-steps"],
        "created_by": stable_id("identity", PRODUCT),
        "created": made_at,
        "modified": made_at,
        "severity": SEVERITIES[triage.severity],
        "labels": ["proposal", "needs-human-approval"],
        "external_references": [
            {"name": one.name, "source": "MITRE ATT&CK", "external_id": one.id, "url": technique_url(one.id)}
            for one in triage.techniques
        ],
        "workflow_start": case.object_id("start"),
        "workflow": _workflow(case, analyst, steps),
        "agent_definitions": {analyst: {"type": "individual", "name": "SOC analyst"}},
    }


def _workflow(case: Case, analyst: str, steps: list[tuple[str, Step]]) -> dict[str, Any]:
    review = Step(text="Read the alert and its source; the box proposes no step for it.", citations=[])
    steps = steps or [("Step", review)]
    ids = [case.object_id("action", str(n), step.text) for n, (_, step) in enumerate(steps)]
    end = case.object_id("end")
    workflow: dict[str, Any] = {case.object_id("start"): {"type": "start", "on_completion": ids[0]}}
    for n, (kind, step) in enumerate(steps):
        workflow[ids[n]] = {
            "type": "action",
            "name": f"{kind} {n + 1}: {step.text}"[:MAX_NAME_CHARS],
            "on_completion": ids[n + 1] if n + 1 < len(steps) else end,
            "commands": [{"type": "manual", "command": step.text}],
            "agent": analyst,
            **_references(case, step),
        }
    workflow[end] = {"type": "end"}
    return workflow


def _references(case: Case, step: Step) -> dict[str, Any]:
    cited = [citation for n in step.citations if (citation := case.citation(n)) is not None]
    if not cited:
        return {}
    return {
        "external_references": [
            {"name": one.title, "description": one.quote, "external_id": one.record_id, "source": PRODUCT}
            for one in cited
        ]
    }
