"""A playbook's three calls with the standard library alone: submit, poll, branch.

    python examples/playbooks/triage_job.py ALERT.json [BASE_URL]

Exit code 0: escalate; 3: a person has to look. Every call ends within 5 seconds, as SOAR tools want it.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

CALL_TIMEOUT_S = 5.0
GIVE_UP_AFTER_S = 600.0


def call(url: str, body: bytes | None = None) -> Any:
    """One HTTP call; the answer as JSON."""
    request = urllib.request.Request(url, data=body)
    if key := os.environ.get("WHIS_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=CALL_TIMEOUT_S) as answer:
        return json.load(answer)


def triage(alert: dict[str, Any], base_url: str) -> dict[str, Any]:
    """Submit, then poll until the job has ended. A retry with the same alert gets the same job."""
    job = call(f"{base_url}/v1/jobs", json.dumps({"kind": "triage", "input": alert}).encode())
    give_up_at = time.monotonic() + GIVE_UP_AFTER_S
    while job["status"] in ("queued", "running"):
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"job {job['id']} is still {job['status']}")
        job = call(f"{base_url}/v1/jobs/{job['id']}?wait=4")
    if job["status"] != "completed":
        raise RuntimeError(f"job {job['id']} {job['status']}: {job['error']}")
    result: dict[str, Any] = job["result"]
    return result


def main() -> int:
    """Print the verdict and the first steps."""
    base_url = sys.argv[2] if len(sys.argv) > 2 else "http://127.0.0.1:8088"
    result = triage(json.loads(Path(sys.argv[1]).read_text()), base_url)
    print(f"{result['alert_id']}: {result['verdict']} ({result['severity']})")
    for step in result["recommended_steps"]:
        print(f"  - {step['text']}")
    return 0 if result["verdict"] == "escalate" else 3


if __name__ == "__main__":
    sys.exit(main())
