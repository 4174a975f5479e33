"""The `guards` section of configs/policy.yaml: what is refused, marked and withheld.

Invariant: an unknown class, action or key is an error before anything starts.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from whis_box.config import Section
from whis_box.schemas import Tlp

RefusalClass = Literal[
    "training_data", "system_prompt", "secrets", "offensive_tooling", "out_of_scope", "tlp"
]
RequestAction = Literal["refuse", "answer"]
CLASSES: tuple[RefusalClass, ...] = (
    "training_data", "system_prompt", "secrets", "offensive_tooling", "out_of_scope", "tlp",
)  # fmt: skip
ALL_REFUSED: dict[RefusalClass, RequestAction] = {name: "refuse" for name in CLASSES}


class GuardPolicy(Section):
    """Settings of the guards; nothing a user, an alert or a document says can change them."""

    detector_threshold: float = Field(0.5, gt=0, lt=1)
    """Score from which a text counts as an order to a model."""
    marking: Literal["none", "delimit", "datamark"] = "delimit"
    """How untrusted text is marked in a prompt: not, between random marks, or word by word."""
    clearance: Tlp = "red"
    """Highest TLP that may be quoted."""
    catalogue: str = "ATT&CK Enterprise v18.1"
    """Version that the catalogue of techniques must name in its first line."""
    requests: dict[RefusalClass, RequestAction] = Field(default_factory=lambda: dict(ALL_REFUSED))
    """What happens to a request of each class; every class must be listed."""

    @model_validator(mode="after")
    def _complete(self) -> GuardPolicy:
        missing = [name for name in CLASSES if name not in self.requests]
        if missing:
            raise ValueError(f"requests lacks {', '.join(missing)}; say refuse or answer for each class")
        return self
