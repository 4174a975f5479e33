"""The chain: what was written verifies, and every way to change it shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from whis_box.audit import AuditLog, tail, verify_log
from whis_box.cli import main
from whis_box.errors import EXIT_OK, EXIT_VERIFICATION


def write(folder: Path, count: int, rotate_bytes: int = 50_000_000) -> Path:
    log = AuditLog(folder, rotate_bytes)
    for n in range(count):
        log.append("ask", "local", f"r-{n}", f"answer-{n}", {"n": n})
    log.close()
    return sorted(folder.glob("audit-*.ndjson"))[-1]


def test_what_was_written_verifies_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    write(tmp_path, 3)
    write(tmp_path, 2)
    assert verify_log(tmp_path).model_dump() == {"intact": True, "entries": 5, "problem": ""}
    assert [one.request_id for one in tail(tmp_path, 2)] == ["r-0", "r-1"]
    assert [one.seq for one in tail(tmp_path, 2, before=4)] == [2, 3]


def _change(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"n":1', '"n":7'), *lines[2:]]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_change, "entry 2 was changed"),
        (lambda lines: [lines[0], *lines[2:]], "entry 3 follows entry 1"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "entry 2 follows entry 0"),
        (lambda lines: [*lines, lines[-1]], "entry 4 follows entry 4"),
        (lambda lines: lines[:-1], "the tail is missing"),
        (lambda lines: ["garbage", *lines], "not an audit entry"),
    ],
)
def test_every_change_breaks_the_chain(
    tmp_path: Path, damage: Callable[[list[str]], list[str]], says: str
) -> None:
    path = write(tmp_path, 4)
    path.write_text("".join(f"{line}\n" for line in damage(path.read_text().splitlines())))
    found = verify_log(tmp_path)
    assert not found.intact and says in found.problem


def test_a_line_forged_without_the_key_is_found(tmp_path: Path) -> None:
    path = write(tmp_path, 2)
    (tmp_path / "audit.key").write_text("00" * 32)
    assert "was changed" in verify_log(tmp_path).problem
    (tmp_path / "audit.key").unlink()
    assert "missing" in verify_log(tmp_path).problem
    assert path.stat().st_mode & 0o077 == 0


def test_the_chain_goes_on_over_rotated_files(tmp_path: Path) -> None:
    write(tmp_path, 40, rotate_bytes=2000)
    files = sorted(tmp_path.glob("audit-*.ndjson"))
    assert len(files) > 3 and all(one.stat().st_size <= 2000 for one in files)
    assert verify_log(tmp_path).entries == 40
    assert len(tail(tmp_path, 25)) == 25
    files[1].unlink()
    assert not verify_log(tmp_path).intact


def test_a_line_cut_off_by_a_crash_is_put_aside_and_noted(tmp_path: Path) -> None:
    path = write(tmp_path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"seq": 3, "at": "2026')
    log = AuditLog(tmp_path)
    log.close()
    assert verify_log(tmp_path).model_dump() == {"intact": True, "entries": 3, "problem": ""}
    assert tail(tmp_path, 1)[0].detail == {"torn_bytes": 22}
    assert path.with_suffix(".torn").read_bytes().startswith(b'{"seq": 3')


def test_a_tail_that_was_taken_away_is_noted_at_the_next_start(tmp_path: Path) -> None:
    """Going on where the log ends now would hide it: the chain would be whole again."""
    path = write(tmp_path, 4)
    path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines()[:2]))
    AuditLog(tmp_path).close()
    noted = tail(tmp_path, 1)[0]
    assert noted.action == "audit.repaired" and "4 were written; the tail is missing" in noted.detail["head"]
    for one in tmp_path.glob("audit-*.ndjson"):
        one.unlink()
    AuditLog(tmp_path).close()
    assert "the log ends at entry 0" in tail(tmp_path, 1)[0].detail["head"]


def test_a_hole_in_the_last_line_is_put_aside(tmp_path: Path) -> None:
    """What a power cut can leave where a line's end was written and its beginning was not."""
    path = write(tmp_path, 2)
    with path.open("ab") as stream:
        stream.write(b"\0" * 40 + b'"mac":"1"}\n')
    AuditLog(tmp_path).close()
    assert verify_log(tmp_path).model_dump() == {"intact": True, "entries": 3, "problem": ""}


def test_the_command_says_it_by_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, 2)
    assert main(["audit", "verify", "--json", "--log", str(tmp_path)]) == EXIT_OK
    assert json.loads(capsys.readouterr().out)["entries"] == 2
    assert main(["audit", "show", "--log", str(tmp_path)]) == EXIT_OK
    assert "answer-1" in capsys.readouterr().out
    path.write_text(path.read_text().replace("local", "other"))
    assert main(["audit", "verify", "--log", str(tmp_path)]) == EXIT_VERIFICATION
