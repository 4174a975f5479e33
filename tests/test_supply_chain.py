"""Locked dependencies are pinned by version and hash, and agree; no tracked file holds a secret."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
from detect_secrets.core.scan import scan_file
from detect_secrets.settings import transient_settings

from whis_box.paths import repository_root

ROOT = repository_root()
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
# Installed one over the other into one environment; ragas has its own.
TOGETHER = ("bootstrap", "runtime", "build", "native", "test", "train", "eval", "bench")
_PIN = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^\s;\\]+)", re.MULTILINE)
# Formats that are precise enough to fail a build; words like "password =" in a runbook are not.
DETECTORS = ("AWSKeyDetector", "AzureStorageKeyDetector", "GitHubTokenDetector", "GitLabTokenDetector",
             "PrivateKeyDetector", "SlackDetector", "StripeDetector", "TwilioKeyDetector", "NpmDetector",
             "PypiTokenDetector", "SendGridDetector", "OpenAIDetector")  # fmt: skip
# Forms of secrets that the redaction is tested with; their values are made up.
MADE_UP = (
    "data/golden/secrets.tsv",
    "data/golden/alerts.ndjson",
    "tests/",
    "data/training/",
    "data/ner/",
    "data/raw/",
)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda one: one.stem)
def test_every_locked_package_is_pinned_by_version_and_hash(lock: Path) -> None:
    blocks = re.split(r"\n(?=[a-zA-Z0-9])", lock.read_text(encoding="utf-8").strip())
    packages = [one for one in blocks if not one.startswith(("#", "--"))]
    assert packages
    for one in packages:
        assert _PIN.match(one) and "--hash=sha256:" in one, f"{lock.name}: {one[:80]}"


def test_locks_that_share_an_environment_agree_on_every_version() -> None:
    versions: dict[str, dict[str, str]] = defaultdict(dict)
    for lock in LOCKS:
        if lock.stem in TOGETHER:
            for pin in _PIN.finditer(lock.read_text(encoding="utf-8")):
                versions[pin["name"]][lock.stem] = pin["version"]
    assert {name: found for name, found in versions.items() if len(set(found.values())) > 1} == {}


def secrets_in(path: Path) -> list[str]:
    with transient_settings({"plugins_used": [{"name": name} for name in DETECTORS]}):
        return [f"{path}:{one.line_number}: {one.type}" for one in scan_file(str(path))]


def test_no_tracked_file_holds_a_secret() -> None:
    done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, cwd=ROOT, check=True)
    names = [one for one in done.stdout.decode().split("\0") if one and not one.startswith(MADE_UP)]
    texts = [ROOT / one for one in names if not one.endswith((".lock", ".onnx", ".png", ".gguf"))]
    assert [found for path in texts if path.is_file() for found in secrets_in(path)] == []


def test_the_scan_would_find_one(tmp_path: Path) -> None:
    planted = tmp_path / "config.txt"
    planted.write_text("key = " + "AKIA" + "2OGYBAH6STMMNXWZ" + "\n")
    assert secrets_in(planted) == [f"{planted}:1: AWS Access Key"]
