"""All guards of one box, opened together: a box with one of them missing does not start."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whis_box.guards.detector import Detector
from whis_box.guards.output import OutputFilter
from whis_box.guards.policy import GuardPolicy
from whis_box.guards.requests import RequestRules
from whis_box.guards.vocabulary import check_version

FILES = ("detector.tsv", "signatures.tsv", "requests.tsv")


@dataclass(frozen=True)
class Gate:
    """The detector, the request rules, the output filter and the policy they follow."""

    detector: Detector
    requests: RequestRules
    output: OutputFilter
    policy: GuardPolicy
    key: bytes

    def mark(self, untrusted: str) -> str:
        """A mark that `untrusted` cannot hold: keyed by this process, the same for the same text."""
        if self.policy.marking == "none":
            return ""
        return hmac.new(self.key, untrusted.encode(), hashlib.sha256).hexdigest()[:8]

    def datamark(self, untrusted: str, mark: str) -> str:
        """`untrusted` with the mark's first letters between its words, where the policy asks for it."""
        return untrusted.replace(" ", f"^{mark[:2]} ") if self.policy.marking == "datamark" else untrusted


def open_gate(folder: Path, catalogue: Path, policy: GuardPolicy, leak_files: Sequence[Path] = ()) -> Gate:
    """Read everything the guards need; `leak_files` has one list for each adapter.

    Raises: NotReadyError when a file is missing; VerificationError when one is damaged or another version.
    """
    check_version(catalogue, policy.catalogue)
    return Gate(
        Detector(folder, policy.detector_threshold),
        RequestRules(folder, policy.requests),
        OutputFilter(leak_files),
        policy,
        secrets.token_bytes(32),
    )
