"""configs/policy.yaml: what may come in, what happens to each kind of finding, and how much is read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from whis_box.config import Section
from whis_box.ingest.readers.draft import Limits

Action = Literal["keep", "pseudonymize", "mask", "drop", "reject"]


class FieldsConfig(Section):
    """Names of alert fields whose values are personal by their schema."""

    account: list[str] = Field(default_factory=list)
    """Accounts."""
    host: list[str] = Field(default_factory=list)
    """Machines of the own site."""
    person: list[str] = Field(default_factory=list)
    """People."""
    employee_id: list[str] = Field(default_factory=list)
    """Staff numbers."""


class PolicyConfig(Section):
    """configs/policy.yaml."""

    licenses: list[str] = Field(min_length=1)
    """SPDX ids, or LicenseRef ids, under which a document may come in."""
    actions: dict[str, Action]
    """Entity type to action; a type that is not listed is masked."""
    min_score: float = Field(0.4, ge=0, le=1)
    """Findings below it are not acted on."""
    internal_suffixes: list[str] = Field(default_factory=list)
    """Last labels of the own names; other host names are indicators."""
    internal_networks: list[str] = Field(default_factory=list)
    """Own networks in CIDR form; other addresses are indicators."""
    kept_values: list[str] = Field(default_factory=list)
    """Regular expressions; a finding that one of them matches from end to end is kept."""
    well_known_accounts: list[str] = Field(default_factory=list)
    """Accounts that every system has and that identify nobody (lower case)."""
    fields: FieldsConfig = FieldsConfig()
    """Names of fields."""
    limits: Limits = Limits()
    """How much of one file is read."""

    def action(self, entity_type: str) -> Action:
        """What happens to findings of one type."""
        return self.actions.get(entity_type, "mask")
