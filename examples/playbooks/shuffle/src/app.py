"""A Shuffle app: `walkoff_app_sdk` is Shuffle's own and is there when Shuffle runs it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import requests
from walkoff_app_sdk.app_base import AppBase  # type: ignore[import-not-found]

CALL_TIMEOUT_S = 5


class WhisBox(AppBase):  # type: ignore[misc]
    """Three actions, each one short call."""

    __version__ = "1.0.0"
    app_name = "Whis Box"

    def submit_triage(self, apikey: str, url: str, alert: str) -> str:
        """Queue an alert."""
        return self._call("POST", apikey, url, "/v1/jobs", {"kind": "triage", "input": json.loads(alert)})

    def get_job(self, apikey: str, url: str, job_id: str) -> str:
        """Look at a job, and wait a little if it is not finished."""
        return self._call("GET", apikey, url, f"/v1/jobs/{job_id}?wait=4", None)

    def search(self, apikey: str, url: str, query: str) -> str:
        """Find passages."""
        return self._call("POST", apikey, url, "/v1/search", {"query": query, "top_k": 5})

    def _call(self, method: str, apikey: str, url: str, path: str, body: dict[str, Any] | None) -> str:
        answer = requests.request(
            method,
            f"{url.rstrip('/')}{path}",
            json=body,
            headers={"Authorization": f"Bearer {apikey}"},
            timeout=CALL_TIMEOUT_S,
        )
        reply = {"success": answer.ok, "status": answer.status_code, "body": answer.json()}
        return json.dumps(reply)


if __name__ == "__main__":
    asyncio.run(WhisBox.run(), debug=True)
