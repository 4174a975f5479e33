"""A triage in the form its caller reads: our own JSON, or one of the exports.

Invariant: the form is chosen by `?format=`, else by `Accept`; it changes no triage, and an Accept that names
nothing known gets JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Header, Query, Response

from whis_box.exports import Case, export, to_text
from whis_box.ingest.alerts import read_alert
from whis_box.schemas import Triage
from whis_box.server.failures import HttpError
from whis_box.server.job_rows import JobRow

Format = Literal["json", "navigator", "stix", "case", "cacao"]
JSON: Format = "json"
# Sources: STIX 2.1 section 12.2; CACAO 2.0 section 1.2; RFC 7763. ATT&CK Navigator has registered none.
MEDIA_TYPES: dict[Format, str] = {
    "navigator": "application/vnd.whis.navigator-layer+json",
    "stix": "application/stix+json;version=2.1",
    "case": "text/markdown; charset=utf-8",
    "cacao": "application/cacao+json;version=2.0",
}
# Media type to schema, for the OpenAPI document; the schemas are those of the formats' own specifications.
SCHEMAS: dict[str, dict[str, Any]] = {
    media_type: {"type": "string" if name == "case" else "object"} for name, media_type in MEDIA_TYPES.items()
}
BY_TYPE = {media_type.partition(";")[0]: name for name, media_type in MEDIA_TYPES.items()}
OWN_TYPES = ("application/json", "application/*", "*/*")

FormatQuery = Annotated[
    Format | None,
    Query(alias="format", description="The form of the triage; without it `Accept` chooses."),
]
AcceptHeader = Annotated[str, Header(alias="accept", include_in_schema=False)]


def chosen(asked: Format | None, accept: str) -> Format:
    """The form a request asks for: its `format`, else the best known media type of `accept`, else JSON."""
    if asked is not None:
        return asked
    for media_type in _by_preference(accept):
        if media_type in OWN_TYPES:
            return JSON
        if media_type in BY_TYPE:
            return BY_TYPE[media_type]
    return JSON


def _by_preference(accept: str) -> list[str]:
    """Media types of an Accept header, highest `q` first. Source: RFC 9110 section 12.5.1."""
    ranked: list[tuple[float, str]] = []
    for part in accept.lower().split(","):
        media_type, *parameters = (one.strip() for one in part.split(";"))
        weight = next((one[2:] for one in parameters if one.startswith("q=")), "1")
        quality = float(weight) if weight.replace(".", "", 1).isdecimal() else 0.0
        if media_type and quality > 0:
            ranked.append((-quality, media_type))
    return [media_type for _, media_type in sorted(ranked, key=lambda one: one[0])]


def check_streamed(asked: Format | None) -> None:
    """Events carry our own JSON alone.

    Raises: HttpError 400.
    """
    if asked not in (None, JSON):
        message = f"format: {asked} has no stream; leave out stream, or take the triage as JSON"
        raise HttpError(400, "format_not_streamed", message, "format")


def rendered(
    form: Format, triage: Triage, event: Mapping[str, object], made_at: datetime | None = None
) -> Response:
    """The answer in `form`, which is not JSON."""
    exported = export(form, Case(triage, read_alert(event), event, made_at or datetime.now(UTC)))
    return Response(to_text(exported), media_type=MEDIA_TYPES[form])


def line(form: Format, triage: Triage, event: Mapping[str, object]) -> str:
    """One line of a batch: the triage, or `{"request_id", form: export}` as `whis triage --export` prints."""
    if form == JSON:
        return triage.model_dump_json()
    exported = export(form, Case(triage, read_alert(event), event, datetime.now(UTC)))
    return json.dumps({"request_id": triage.request_id, form: exported}, ensure_ascii=False)


def of_job(asked: Format | None, accept: str, row: JobRow) -> Response | None:
    """A completed triage job in the form asked for; None where its own JSON, or its error, is the answer.

    Raises: HttpError 400 when `asked` is none of the forms of the job's kind.
    """
    if row.kind != "triage" and asked not in (None, JSON):
        message = f"format: job {row.id} is of kind {row.kind}; only a triage has the form {asked}"
        raise HttpError(400, "format_not_available", message, "format")
    form = chosen(asked, accept)
    if form == JSON or row.kind != "triage" or row.status != "completed":
        return None
    assert row.result is not None and row.finished_at is not None
    made_at = datetime.fromtimestamp(row.finished_at, UTC)
    return rendered(form, Triage.model_validate_json(row.result), json.loads(row.input), made_at)
