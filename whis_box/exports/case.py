"""What every export is made from, and the ids and times they share.

Invariant: the same case gives the same ids, so that an export made twice is recognized as one.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from whis_box.ingest.alerts import Alert
from whis_box.schemas import TLP_ORDER, Citation, Tlp, Triage

NAMESPACE = uuid.UUID("6f1f9b0e-2d0a-5a52-9c57-0e7f5f9f4f11")
PRODUCT = "Whis Box"
# The release of data/catalogue/attack-enterprise.tsv, from which the technique names come.
ATTACK_VERSION = "18.1"


@dataclass(frozen=True)
class Case:
    """One judged alert: the triage, the alert as it was read, the event as it came, and when (UTC)."""

    triage: Triage
    alert: Alert
    event: Mapping[str, object]
    made_at: datetime

    @property
    def title(self) -> str:
        """The alert's own title."""
        return self.alert.title

    @property
    def tlp(self) -> Tlp:
        """The highest TLP of the passages that are quoted."""
        return max((one.tlp for one in self.triage.citations), key=TLP_ORDER.index, default="clear")

    def citation(self, number: int) -> Citation | None:
        """The citation with this number."""
        return next((one for one in self.triage.citations if one.n == number), None)

    def object_id(self, kind: str, *parts: str) -> str:
        """A stable `kind--uuid` of this alert."""
        return stable_id(kind, self.triage.alert_id, *parts)


def stable_id(kind: str, *parts: str) -> str:
    """`kind--uuid5`, the same for the same parts."""
    name = "\x1f".join((kind, *parts))
    return f"{kind}--{uuid.uuid5(NAMESPACE, name)}"


def timestamp(moment: datetime) -> str:
    """STIX and CACAO time: UTC with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def technique_url(technique_id: str) -> str:
    """The page of a technique on the ATT&CK site; a name to show, never opened here."""
    return f"https://attack.mitre.org/techniques/{technique_id.replace('.', '/')}/"
