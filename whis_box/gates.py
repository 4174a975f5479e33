"""Gate files: the verdict of an evaluation, bound to what was evaluated, for whoever promotes it.

Invariant: a gate file holds for exactly one base, adapter, index, prompt and policy; one that was altered,
refused its subject or belongs to another subject opens nothing. Its own digest shows damage; who wrote it
is shown by the signature over its body, where a key is configured, or by the signed manifest that lists it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from pydantic import Field, ValidationError

from whis_box.config import describe_validation
from whis_box.errors import VerificationError
from whis_box.paths import read_text, written_beside
from whis_box.schemas import Frozen, Lineage, Sha256

FORMAT = "whis-gate/1"
GATE_FILE = "gate.json"
BOUND = ("base", "adapter", "index", "prompt", "policy")

Sign = Callable[[bytes], str]
Verify = Callable[[bytes, str], bool]


class GateRow(Frozen):
    """One rule and how the figure stands to it; `margin` is positive on the right side of the limit."""

    metric: str
    limit: str
    passed: bool
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    margin: float | None = None
    reason: str = ""


class GateFile(Frozen):
    """gate.json."""

    format: str = FORMAT
    passed: bool
    subject: str
    binding: dict[str, str]
    """Digests of base, adapter, index, prompt and policy."""
    rows: list[GateRow] = Field(min_length=1)
    rules_sha256: Sha256
    """Of the rules that were applied."""
    results_sha256: Sha256
    """Of results.json."""
    created_at: str
    sha256: str = ""
    """Over everything but this and the signature."""
    signature: str = ""

    def body(self) -> bytes:
        """The bytes that `sha256` and `signature` are over: canonical JSON of everything else."""
        fields = self.model_dump(mode="json", exclude={"sha256", "signature"})
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def binding_of(lineage: Lineage) -> dict[str, str]:
    """The digests that a gate is bound to."""
    return {name: getattr(lineage, name) for name in BOUND}


def write_gate(path: Path, gate: GateFile, sign: Sign | None = None) -> GateFile:
    """Seal and write a gate file; what was written.

    Raises: StorageError.
    """
    body = gate.body()
    sealed = gate.model_copy(
        update={
            "sha256": hashlib.sha256(body).hexdigest(),
            "signature": sign(body) if sign is not None else "",
        }
    )
    with written_beside(path) as beside:
        beside.write_text(sealed.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return sealed


def read_gate(path: Path, verify: Verify | None = None) -> GateFile:
    """A gate file whose digest, and signature if `verify` is given, hold.

    Raises: NotReadyError if it is missing; VerificationError if it is altered or unsigned; StorageError.
    """
    text = read_text(path, "run `whis eval run` and `whis eval gate` on this subject")
    try:
        gate = GateFile.model_validate_json(text)
    except ValidationError as cause:
        raise VerificationError(describe_validation(str(path), cause)) from None
    if gate.format != FORMAT:
        raise VerificationError(f"{path}: format {gate.format!r} is not {FORMAT}; gate the subject again")
    body = gate.body()
    if hashlib.sha256(body).hexdigest() != gate.sha256:
        raise VerificationError(f"{path}: its digest does not match what it says; gate the subject again")
    if verify is not None and not (gate.signature and verify(body, gate.signature)):
        raise VerificationError(f"{path}: is not signed by a trusted key; gate and sign the subject again")
    return gate


def require_gate(path: Path, lineage: Lineage, verify: Verify | None = None) -> GateFile:
    """A passed gate for exactly this lineage: what promotion asks for.

    Raises: VerificationError naming the failed rows or the digests that differ; as `read_gate`.
    """
    gate = read_gate(path, verify)
    wanted = binding_of(lineage)
    if differing := [
        f"{name} is {gate.binding.get(name, 'missing')[:12]}, not {digest[:12]}"
        for name, digest in wanted.items()
        if gate.binding.get(name) != digest
    ]:
        raise VerificationError(f"{path}: belongs to another subject ({'; '.join(differing)}); gate this one")
    if not gate.passed or not all(row.passed for row in gate.rows):
        failed = ", ".join(row.metric for row in gate.rows if not row.passed)
        raise VerificationError(f"{path}: refused this subject ({failed}); it may not be promoted")
    return gate
