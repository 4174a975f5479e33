"""What may leave a disconnected host for the build host: reviewed, and without anything about a person.

    DIR/ratings.ndjson   every rating, without its texts
    DIR/audit.ndjson     what the log says, in closed form
    DIR/pairs.ndjson     redacted texts of the ratings whose analyst agreed to it
    DIR/review.tsv       one decision a row

Invariant: a line in closed form holds only numbers, times to the hour, digests and words of fixed lists; a
pair was redacted by the recognizers; nothing is handed over that a person did not release in review.tsv, nor
anything that changed after the review.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from whis_box.audit import AuditEntry, tail
from whis_box.durable import Disk, write_file
from whis_box.errors import InputError, NotReadyError, VerificationError
from whis_box.paths import read_text
from whis_box.rollout.store import RolloutStore
from whis_box.schemas import written_now

RATINGS, AUDIT, PAIRS, REVIEW = "ratings.ndjson", "audit.ndjson", "pairs.ndjson", "review.tsv"
MAX_LINES = 1_000_000
HOLD, RELEASE = "hold", "release"
HEADER = "sha256\tfile\tline\tdecision\twhat\n"
Redact = Callable[[str, str], str]
_WORD = re.compile(r"[a-z][a-z0-9_.]{0,59}")
_DIGEST = re.compile(r"[0-9a-f]{12,64}|none")
_REFERENCE = re.compile(r"[A-Za-z0-9_.@-]{1,100} on [A-Za-z0-9_.@-]{1,100}")


def prepare(folder: Path, state: Path, key: bytes, redact: Redact | None) -> dict[str, int]:
    """Write what may leave into `folder`, with a review list that releases nothing yet; lines by file.

    Without `redact`, no pair is written. Raises: InputError if the folder exists; VerificationError,
    StorageError.
    """
    if folder.exists():
        raise InputError(f"{folder}: exists; name a new folder")
    store = RolloutStore(state / "rollout.sqlite")
    try:
        rows = store.ratings(MAX_LINES)
    finally:
        store.close()
    agreed = [row for row in rows if row["training"] == "yes"] if redact is not None else []
    parts = {
        RATINGS: [_rating(row) for row in rows],
        AUDIT: [
            _entry(entry, key) for name in ("audit", "audit-cli") for entry in tail(state / name, MAX_LINES)
        ],
        PAIRS: [pair(row, redact) for row in agreed if redact is not None],
    }
    for name, lines in parts.items():
        write_file(Disk(), folder / name, [_line(one) for one in lines])
    write_file(Disk(), folder / REVIEW, [HEADER.encode(), *_review_rows(parts)])
    return {name: len(lines) for name, lines in parts.items()}


def pair(row: dict[str, Any], redact: Redact) -> dict[str, Any]:
    """A rating with its redacted texts, for training."""
    texts = {name: _redacted(row["id"], row[name], redact) for name in ("input", "output", "comment")}
    return {**{name: row[name] for name in ("id", "kind", "rating", "verdict", "adapter", "at")}, **texts}


def _redacted(name: str, text: str, redact: Redact) -> str:
    """A text, or an event as JSON: first each value without its escapes, then all of it with its keys."""

    def walk(value: Any) -> Any:
        if isinstance(value, str):
            return redact(name, value)
        if isinstance(value, list):
            return [walk(one) for one in value]
        return {key: walk(one) for key, one in value.items()} if isinstance(value, dict) else value

    try:
        parsed = json.loads(text)
    except ValueError:
        return redact(name, text)
    return redact(name, json.dumps(walk(parsed), ensure_ascii=False))


def hand_over(folder: Path, medium: Path) -> dict[str, Any]:
    """Copy what was released to a new folder on `medium`, with its SHA256SUMS; what was copied.

    Raises: InputError for an unclear review; VerificationError if a line changed since; StorageError.
    """
    if medium.exists():
        raise InputError(f"{medium}: exists; name a new folder")
    lines = {name: read_text(folder / name).splitlines() for name in (RATINGS, AUDIT, PAIRS)}
    released: dict[str, list[str]] = {name: [] for name in lines}
    for number, (digest, name, line, decision) in enumerate(_read_review(folder / REVIEW), 2):
        if name not in lines or decision not in (HOLD, RELEASE):
            raise InputError(
                f"{folder / REVIEW}:{number}: {decision!r} for {name!r}; write {HOLD} or {RELEASE}"
            )
        chosen = lines[name] if line == "all" else lines[name][int(line) - 1 : int(line)]
        if hashlib.sha256("".join(f"{one}\n" for one in chosen).encode()).hexdigest() != digest:
            raise VerificationError(f"{folder / name}: line {line} changed after the review; export again")
        if decision == RELEASE:
            released[name] += chosen
    if not any(released.values()):
        raise InputError(
            f"{folder / REVIEW}: nothing is released; change {HOLD} to {RELEASE} where you agree"
        )
    counts = {name: len(kept) for name, kept in released.items()}
    note = {"created_at": written_now(), "lines": counts}
    files = {name: "".join(f"{one}\n" for one in kept).encode() for name, kept in released.items() if kept}
    files["export.json"] = _line(note)
    sums = [f"{hashlib.sha256(raw).hexdigest()}  {name}\n".encode() for name, raw in sorted(files.items())]
    for name, raw in files.items():
        write_file(Disk(), medium / name, [raw])
    write_file(Disk(), medium / "SHA256SUMS", sums)
    return {**note, "sha256": hashlib.sha256(b"".join(sums)).hexdigest()}


# ------------------------------------------------------------ closed form


def _rating(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": _kept(row["id"], _DIGEST),
        "at": row["at"][:13],
        "adapter": _kept(row["adapter"], _DIGEST),
        "release": _kept(row["release"], _REFERENCE),
        **{name: _kept(row[name], _WORD) for name in ("kind", "rating", "verdict", "outcome")},
    }


def _entry(entry: AuditEntry, key: bytes) -> dict[str, Any]:
    """One log line: no id, text or name of the caller's; `mac` finds it again in the log on its host."""
    detail = entry.detail
    lineage = detail.get("lineage")
    found = detail.get("findings")
    fields: dict[str, Any] = {
        "outcome": _kept(detail.get("outcome"), _WORD),
        "rating": _kept(detail.get("rating"), _WORD),
        "findings": [_kept(one, _WORD) for one in found] if isinstance(found, list) else None,
        "lineage": {name: _kept(value, _DIGEST) for name, value in lineage.items() if _WORD.fullmatch(name)}
        if isinstance(lineage, dict)
        else None,
        **{name: _number(detail.get(name)) for name in ("total_ms", "hits", "revision", "torn_bytes")},
    }
    return {
        "seq": entry.seq,
        "at": entry.at[:13],
        "actor": hmac.new(key, f"actor\0{entry.actor}".encode(), hashlib.sha256).hexdigest()[:12],
        "action": _kept(entry.action, _WORD),
        "mac": _kept(entry.mac, _DIGEST),
        **{name: value for name, value in fields.items() if value not in (None, "")},
    }


def _kept(value: object, form: re.Pattern[str]) -> str:
    """The value if it has the form, else nothing."""
    return value if isinstance(value, str) and form.fullmatch(value) else ""


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


# ----------------------------------------------------------------- review


def _line(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, ensure_ascii=False) + "\n").encode()


def _review_rows(parts: dict[str, list[dict[str, Any]]]) -> Iterator[bytes]:
    """One row for each file in closed form, one for each pair."""
    for name in (RATINGS, AUDIT):
        digest = hashlib.sha256(b"".join(map(_line, parts[name]))).hexdigest()
        yield f"{digest}\t{name}\tall\t{HOLD}\t{len(parts[name])} lines in closed form\n".encode()
    for number, one in enumerate(parts[PAIRS], 1):
        digest = hashlib.sha256(_line(one)).hexdigest()
        yield f"{digest}\t{PAIRS}\t{number}\t{HOLD}\tread this line of {PAIRS}\n".encode()


def _read_review(path: Path) -> Iterator[tuple[str, str, str, str]]:
    header, _, rest = read_text(path, "run `whis state export` first").partition("\n")
    if header + "\n" != HEADER:
        raise InputError(f"{path}: does not begin with {HEADER.strip()!r}; export again")
    for number, row in enumerate(rest.splitlines(), 2):
        cells = row.split("\t")
        if len(cells) != 5 or not (cells[2] == "all" or cells[2].isdecimal()):
            raise InputError(f"{path}:{number}: not a row of five cells; change the decision only")
        yield cells[0], cells[1], cells[2], cells[3].strip()


def redactor(configs: Path, key: bytes) -> Redact:
    """Personal data and secrets out of a text, the same value always under the same pseudonym.

    Raises: NotReadyError where the recognizers are not installed; ConfigError, VerificationError.
    """
    from whis_box.ingest.sanitize.policy import read_policy
    from whis_box.ingest.sanitize.pseudonyms import Pseudonyms
    from whis_box.ingest.sanitize.redact import redact

    try:
        from whis_box.ingest.sanitize.analyzer import Analyzer
    except ModuleNotFoundError as cause:
        raise NotReadyError(
            f"the recognizers of personal data are not part of this program ({cause.name} is missing): texts "
            "stay here, ratings and audit lines leave without them"
        ) from None
    policy = read_policy(configs)
    analyzer, pseudonyms = Analyzer(policy), Pseudonyms(key)

    def apply(name: str, text: str) -> str:
        redacted = redact(name, text, analyzer.find(text), policy, pseudonyms)
        if redacted.refused_for:
            return f"[{redacted.refused_for}]"
        return redacted.text

    return apply
