"""configs/policy.yaml: what may come in, what happens to each kind of finding, and how much is read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from whis_box.config import Section, load_config
from whis_box.guards.policy import GuardPolicy
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
    people_model: str = "data/ner"
    """Folder of the own model of names and addresses, beside the configs' folder; "none" for forms only."""
    larger_models: list[str] = Field(default_factory=list)
    """spaCy pipelines, installed or as folders; the first that is there finds the names instead."""
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
    guards: GuardPolicy = GuardPolicy()
    """What the copilot refuses and marks."""

    def action(self, entity_type: str) -> Action:
        """What happens to findings of one type."""
        return self.actions.get(entity_type, "mask")


def read_policy(configs: Path) -> PolicyConfig:
    """policy.yaml of the folder `configs`, with the path of the people model made absolute.

    Raises: NotReadyError, ConfigError.
    """
    policy = load_config(configs / "policy.yaml", PolicyConfig)
    if policy.people_model == "none":
        return policy
    return policy.model_copy(update={"people_model": str(configs.resolve().parent / policy.people_model)})
