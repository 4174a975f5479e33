"""A root of trust is pinned by its fingerprint and replaced only by enough of its own keys."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from whis_box.box import trust
from whis_box.box.minisign import SecretKey, create_key
from whis_box.errors import InputError, NotReadyError, VerificationError

FAR = "2099-01-01T00:00:00Z"


def root(version: int, keys: list[SecretKey], threshold: int) -> trust.Root:
    texts = [key.public.text() for key in keys]
    return trust.Root(
        format_version=1,
        version=version,
        expires_at=FAR,
        threshold=threshold,
        root_keys=texts,
        release_keys=[create_key().public.text()],
    )


@pytest.fixture
def three() -> list[SecretKey]:
    return [create_key() for _ in range(3)]


def test_it_is_pinned_only_by_its_fingerprint(three: list[SecretKey], tmp_path: Path) -> None:
    raw = trust.write_root(tmp_path, root(1, three, 2), three[:2])
    path = tmp_path / "root.1.json"
    assert trust.read_pinned(path, hashlib.sha256(raw).hexdigest())[0].version == 1
    assert trust.read_pinned(path, trust.fingerprint(raw).upper())[0].threshold == 2
    with pytest.raises(VerificationError, match="its fingerprint is"):
        trust.read_pinned(path, "0" * 64)
    with pytest.raises(NotReadyError, match="missing"):
        trust.read_pinned(tmp_path / "none.json", "0" * 64)


def test_enough_old_keys_may_replace_all_keys(three: list[SecretKey], tmp_path: Path) -> None:
    first = root(1, three, 2)
    fresh = [create_key(), create_key()]
    trust.write_root(tmp_path, root(2, fresh, 2), [*fresh, *three[:2]])
    trust.write_root(tmp_path, root(3, fresh, 1), fresh)
    newest, raw = trust.follow(first, tmp_path)
    assert newest.version == 3 and raw == (tmp_path / "root.3.json").read_bytes()


def test_too_few_old_keys_are_refused(three: list[SecretKey], tmp_path: Path) -> None:
    fresh = [create_key()]
    trust.write_root(tmp_path, root(2, fresh, 1), [*fresh, three[0]])
    with pytest.raises(VerificationError, match="signed by 1 keys of root 1, 2 are needed"):
        trust.follow(root(1, three, 2), tmp_path)


def test_a_new_root_must_be_signed_by_itself(three: list[SecretKey], tmp_path: Path) -> None:
    fresh = [create_key(), create_key()]
    with pytest.raises(InputError, match="needs 2 of its own"):
        trust.write_root(tmp_path, root(2, fresh, 2), [*three, fresh[0]])
    trust.write_root(tmp_path, root(2, fresh, 2), [*three, *fresh])
    (tmp_path / f"root.2.json.{fresh[0].public.key_id}.minisig").unlink()
    with pytest.raises(VerificationError, match="keys of root 2 itself"):
        trust.follow(root(1, three, 2), tmp_path)


def test_one_key_does_not_count_twice(three: list[SecretKey], tmp_path: Path) -> None:
    twice = [three[0], three[0]]
    with pytest.raises(VerificationError, match="threshold 2 of 1 different"):
        trust.write_root(tmp_path, root(1, twice, 2), twice)


def test_a_root_that_was_changed_or_renumbered_is_refused(three: list[SecretKey], tmp_path: Path) -> None:
    trust.write_root(tmp_path, root(3, three, 2), three)
    for path in sorted(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("root.3", "root.2")))
    with pytest.raises(VerificationError):
        trust.follow(root(1, three, 2), tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"format_version": 1}', "{" * 5000])
def test_what_is_no_root_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"root\.1\.json"):
        trust.parse_root(text.encode(), tmp_path / "root.1.json")


def test_an_expired_release_is_refused_and_a_wrong_clock_only_warned_about() -> None:
    issued, expires = "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"
    assert trust.check_time("release 3", issued, expires, datetime(2026, 6, 1, tzinfo=UTC)) == []
    with pytest.raises(VerificationError, match="release 3 has expired at 2027-01-01"):
        trust.check_time("release 3", issued, expires, datetime(2027, 1, 1, tzinfo=UTC))
    [warning] = trust.check_time("release 3", issued, expires, datetime(1970, 1, 1, tzinfo=UTC))
    assert "the clock says 1970-01-01" in warning
    [warning] = trust.check_time("release 3", issued, expires, datetime(2025, 12, 1, tzinfo=UTC))
    assert "before release 3 was issued" in warning
