"""Posting finished jobs to allowed hosts, signed by Standard Webhooks 1.0; retries survive a restart.

Source: github.com/standard-webhooks/standard-webhooks, spec 1.0: the signed text is id.timestamp.body.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os

import httpx

from whis_box.errors import ConfigError, StorageError
from whis_box.server.job_rows import JobRow
from whis_box.server.jobs import JobStore
from whis_box.server.settings import CallbackConfig

SECRET_ENV = "WHIS_WEBHOOK_SECRET"
POLL_S = 1.0
log = logging.getLogger("whis.callbacks")


def read_secret(config: CallbackConfig) -> bytes:
    """The signing secret of the environment, whose variable is removed; empty when callbacks are off.

    Raises: ConfigError when callbacks are on and there is no usable secret.
    """
    text = os.environ.pop(SECRET_ENV, "")
    if not config.hosts:
        return b""
    try:
        secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        secret = b""
    if len(secret) < 24:
        raise ConfigError(f"callbacks.hosts is set, but {SECRET_ENV} is not whsec_ and 24 bytes in base64")
    return secret


def signature(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()


class Courier:
    """Delivers what is due."""

    def __init__(self, store: JobStore, config: CallbackConfig, secret: bytes) -> None:
        self._store, self._config, self._secret = store, config, secret

    async def run(self) -> None:
        """Until cancelled."""
        if not self._config.hosts:
            return
        async with httpx.AsyncClient(timeout=self._config.timeout_s, trust_env=False) as client:
            while True:
                try:
                    for row, tries in await asyncio.to_thread(self._store.due_deliveries):
                        await self._deliver(client, row, tries)
                except StorageError as error:
                    log.error("job store", extra={"fields": {"problem": str(error)}})
                await asyncio.sleep(POLL_S)

    async def _deliver(self, client: httpx.AsyncClient, row: JobRow, tries: int) -> None:
        body = row.wire().model_dump_json().encode()
        timestamp = int(self._store.now())
        headers = {
            "content-type": "application/json",
            "webhook-id": row.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._secret, row.id, timestamp, body),
        }
        try:
            answer = await client.post(row.callback_url, content=body, headers=headers)
            outcome = f"status {answer.status_code}"
            delivered = answer.is_success
        except httpx.HTTPError as cause:
            outcome, delivered = type(cause).__name__, False
        waits = self._config.retries_s
        gives_up = not delivered and tries + 1 >= len(waits)
        due_at = None if delivered or gives_up else self._store.now() + waits[tries + 1]
        await asyncio.to_thread(self._store.note_delivery, row.id, tries + 1, due_at)
        log.info("callback", extra={"fields": {"job": row.id, "outcome": outcome, "try": tries + 1}})
