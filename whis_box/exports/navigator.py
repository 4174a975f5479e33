"""A layer of the ATT&CK Navigator: the techniques of a triage with their scores and evidence.

Source: ATT&CK Navigator layer file format 4.5.
"""

from __future__ import annotations

from typing import Any

from whis_box.exports.case import ATTACK_VERSION, PRODUCT, Case, technique_url
from whis_box.schemas import TechniqueMatch

MAX_COMMENT_CHARS = 600


def layer(case: Case) -> dict[str, Any]:
    """A layer with one entry per technique; `score` is 0 to 100."""
    triage = case.triage
    return {
        "name": f"{PRODUCT}: {case.title}"[:200],
        "versions": {"attack": ATTACK_VERSION.partition(".")[0], "navigator": "5.1.0", "layer": "4.5"},
        "domain": "enterprise-attack",
        "description": f"Alert {triage.alert_id}: {triage.verdict}, {triage.severity}. {triage.summary}",
        "techniques": [_technique(case, one) for one in triage.techniques],
        "gradient": {"colors": ["#ffffff", "#ffe766", "#ff6666"], "minValue": 0, "maxValue": 100},
        "layout": {"layout": "side", "showID": True, "showName": True, "expandedSubtechniques": "annotated"},
        "hideDisabled": False,
        "sorting": 3,
        "metadata": [
            {"name": "alert", "value": triage.alert_id},
            {"name": "verdict", "value": triage.verdict},
            {"name": "box", "value": triage.lineage.box},
        ],
    }


def _technique(case: Case, one: TechniqueMatch) -> dict[str, Any]:
    cited = [citation for n in one.citations if (citation := case.citation(n)) is not None]
    comment = " ".join(f'"{" ".join(citation.quote.split())}" ({citation.title})' for citation in cited)
    named = one.id in case.alert.technique_ids
    return {
        "techniqueID": one.id,
        "score": round(one.score * 100),
        "enabled": True,
        "comment": (comment or "Named by the alert's source.")[:MAX_COMMENT_CHARS],
        "showSubtechniques": "." in one.id,
        "metadata": [{"name": "named by the source", "value": "yes" if named else "no"}],
        "links": [{"label": one.id, "url": technique_url(one.id)}],
    }
