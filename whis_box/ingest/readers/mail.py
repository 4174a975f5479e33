"""E-mail (EML): headers that matter, the body as text, attachments as files of their own.

Invariant: HTML parts are read as text; nothing they point at is fetched.
"""

from __future__ import annotations

import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage

from whis_box.ingest.readers.draft import Draft, Item, Limits, RawFile, Skip
from whis_box.ingest.readers.html import html_text

HEADERS = ("From", "Reply-To", "To", "Cc", "Date", "Message-ID", "Return-Path", "Authentication-Results")
MAX_ATTACHMENTS = 200


def read_mail(file: RawFile, limits: Limits) -> Iterator[Item]:
    """The message as one document."""
    message = _parse(file)
    lines = [f"{name}: {value}" for name in HEADERS for value in _values(message, name)]
    lines += [f"Received: {value}" for value in _values(message, "Received")[:20]]
    body = message.get_body(preferencelist=("plain", "html"))
    text = _content(body) if isinstance(body, EmailMessage) else ""
    if not lines and not text.strip():
        yield Skip(file.name, "holds no mail headers and no body; is it an EML file?")
        return
    subject = " ".join(_values(message, "Subject")) or "Mail without a subject"
    sections = ["## Headers", "\n".join(f"- {line}" for line in lines), "## Message", text.strip()]
    yield Draft(key="mail", title=subject[:200], text="\n\n".join(sections), labels=("kind:mail",))


def attachments(file: RawFile, limits: Limits) -> Iterator[RawFile | Skip]:
    """Every attached file, named `mail.eml!name`."""
    for number, part in enumerate(_parse(file).iter_attachments(), start=1):
        name = f"{file.name}!{(part.get_filename() or f'attachment-{number}').replace('/', '_')}"
        if number > MAX_ATTACHMENTS:
            yield Skip(name, f"more than {MAX_ATTACHMENTS} attachments; the rest was not read")
            return
        payload = part.get_payload(decode=True)
        if isinstance(payload, bytes):
            yield RawFile(name, payload[: limits.max_file_bytes])
        else:
            yield Skip(name, "an attached message or multipart; save it as a file of its own")


def _parse(file: RawFile) -> EmailMessage:
    message = email.message_from_bytes(file.data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def _values(message: EmailMessage, name: str) -> list[str]:
    # Header parsing is lazy and can fail on damaged headers; the raw value is the honest fallback.
    try:
        return [" ".join(str(value).split()) for value in message.get_all(name, [])]
    except (ValueError, IndexError, AttributeError):
        return [" ".join(str(value).split()) for key, value in message.raw_items() if key == name]


def _content(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    raw = payload if isinstance(payload, bytes) else b""
    charset = part.get_content_charset() or "utf-8"
    try:
        text = raw.decode(charset, "replace")
    except LookupError:
        text = raw.decode("utf-8", "replace")
    return html_text(text)[1] if part.get_content_type() == "text/html" else text
