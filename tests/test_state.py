"""The state folder outlives its releases: brought forward, never taken back, readable for the one before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.small_release import Builder, new_builder, write_first_root, write_release
from whis_box import state
from whis_box.audit import AuditLog, verify_log
from whis_box.box.install import Options, install, pin
from whis_box.box.selftest import migrate_state
from whis_box.box.slots import Home, locked, rollback
from whis_box.cli import main
from whis_box.cli_state import migrate
from whis_box.durable import Disk
from whis_box.errors import EXIT_OK, NotReadyError, VerificationError
from whis_box.ingest.sanitize.pseudonyms import load_key
from whis_box.paths import file_sha256
from whis_box.rollout import store
from whis_box.rollout.store import RolloutStore
from whis_box.rollout.transaction import ADDS, open_store, version_of
from whis_box.server import job_rows
from whis_box.server.jobs import JobStore, NewJob
from whis_box.server.settings import JobsConfig

NEXT_STEP = "alter table jobs add column note text not null default ''"
JOB = NewJob(owner="soar", kind="triage", input="{}", clearance="clear", fingerprint="f")
RATING = {
    "answer_id": "a", "rating": "up", "verdict": "", "comment": "", "analyst": "", "training": "no",
    "adapter": "none", "release": "base@box", "outcome": "answered", "kind": "ask", "input": "", "output": "",
}  # fmt: skip


def fill(folder: Path) -> None:
    """What a release leaves: an audit log, a job, a rating and a pseudonym key."""
    log = AuditLog(folder / "audit")
    log.append("ask", "local", "r-1")
    log.close()
    opened = JobStore(folder / "jobs.sqlite", JobsConfig())
    opened.submit([JOB])
    opened.close()
    ratings = RolloutStore(folder / "rollout.sqlite")
    ratings.rate(RATING)
    ratings.close()
    (folder / "pseudonym.key").write_text("k" * 64)


def kept(folder: Path) -> dict[str, Any]:
    """What this program reads of it."""
    opened = JobStore(folder / "jobs.sqlite", JobsConfig())
    ratings = RolloutStore(folder / "rollout.sqlite")
    found = {
        "jobs": len(opened.page(None, None, None, 100, None)),
        "ratings": len(ratings.ratings(100)),
        "audit": verify_log(folder / "audit").entries,
        "key": load_key(folder / "pseudonym.key")[0],
    }
    opened.close()
    ratings.close()
    return found


@pytest.mark.parametrize("steps", [job_rows.STEPS, store.STEPS], ids=["jobs", "rollout"])
def test_every_step_of_a_store_only_adds(steps: tuple[str, ...]) -> None:
    for step in steps:
        assert all(ADDS.match(one.strip()) for one in step.split(";") if one.strip())


@pytest.mark.parametrize(
    "step",
    [
        "drop table jobs",
        "alter table jobs drop column input",
        "alter table jobs add column note text not null",
        "alter table jobs rename to old",
        "delete from jobs",
        "update jobs set status = 'queued'",
        "create table jobs (id text)",
    ],
)
def test_a_step_that_would_break_the_release_before_does_not_run(step: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="would break"):
        open_store(tmp_path / "jobs.sqlite", (*job_rows.STEPS, step))


def test_a_store_from_before_versions_is_brought_forward_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    connection = apsw.Connection(str(path))
    connection.execute(job_rows.STEPS[0])
    connection.execute(
        "insert into jobs (id, owner, kind, status, request_id, input, clearance, model, created_at,"
        " callback_url, fingerprint) values ('1', 'a', 'ask', 'queued', '', '', 'clear', '', 1, '', '')"
    )
    connection.close()
    opened = open_store(path, (*job_rows.STEPS, NEXT_STEP))
    assert version_of(opened) == len(job_rows.STEPS) + 1
    assert opened.execute("select id, note from jobs").fetchall() == [("1", "")]
    opened.close()


def test_a_failed_step_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    fill(tmp_path)
    broken = "alter table nothing add column note text not null default ''"
    with pytest.raises(Exception, match="nothing"):
        open_store(tmp_path / "jobs.sqlite", (*job_rows.STEPS, NEXT_STEP, broken))
    opened = open_store(tmp_path / "jobs.sqlite", job_rows.STEPS)
    assert version_of(opened) == len(job_rows.STEPS)
    assert "note" not in [row[1] for row in opened.execute("pragma table_info(jobs)")]
    opened.close()
    assert kept(tmp_path)["jobs"] == 1


def test_migrating_twice_changes_nothing_and_requeues_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path)
    running = JobStore(tmp_path / "jobs.sqlite", JobsConfig())
    running.claim()
    assert main(["state", "migrate", "--state", str(tmp_path)]) == EXIT_OK
    assert migrate(tmp_path) == migrate(tmp_path)
    assert running.counts() == {"running": 1}
    running.close()
    assert main(["state", "info", "--json", "--state", str(tmp_path)]) == EXIT_OK
    assert f'"version": {state.VERSION}' in capsys.readouterr().out


def test_a_folder_that_needs_a_later_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"version": 9, "oldest_reader": 9}')
    with pytest.raises(NotReadyError, match="needs a program of version 9"):
        migrate(tmp_path)
    (tmp_path / "state.json").write_text('{"version": 9, "oldest_reader": 1}')
    assert state.write_note(tmp_path, Disk()).version == 9
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(VerificationError, match=r"state\.json"):
        state.read_note(tmp_path)


@pytest.fixture
def builder() -> Builder:
    return new_builder()


def future_program() -> str:
    """A later release's `whis`: this program with one more step of the job store."""
    return (
        f"#!{sys.executable}\nimport sys\nfrom whis_box import cli, state\n"
        "from whis_box.server import job_rows\n"
        f'job_rows.STEPS += ("{NEXT_STEP}",)\nstate.VERSION += 1\nsys.exit(cli.main(sys.argv[1:]))\n'
    )


def release(folder: Path, sequence: int, builder: Builder, program: str) -> Path:
    write_release(folder, sequence, builder.release_key)
    (folder / "whis").write_text(program)
    write_release_again(folder, sequence, builder)
    return folder


def write_release_again(folder: Path, sequence: int, builder: Builder) -> None:
    from tests.small_release import EXPIRES_AT, ISSUED_AT
    from whis_box.box.manifest import FORMAT_VERSION, Manifest, describe_folder, write_manifest

    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name="whis-box",
        version="0.1.0",
        source_commit="unknown",
        sequence=sequence,
        issued_at=ISSUED_AT,
        expires_at=EXPIRES_AT,
        files=describe_folder(folder),
    )
    write_manifest(folder, manifest, builder.release_key)


def test_the_state_survives_an_update_and_the_way_back(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Release 2 adds a column by its own program at install; release 1 reads and writes after rollback."""
    monkeypatch.setenv("PYTHONPATH", str(Path(state.__file__).parent.parent))
    home = Home(tmp_path / "home", Disk())
    write_first_root(tmp_path / "trust", builder)
    root = tmp_path / "trust" / "root.1.json"
    now = f"#!{sys.executable}\nimport sys\nfrom whis_box import cli\nsys.exit(cli.main(sys.argv[1:]))\n"
    with locked(home):
        pin(home, root, file_sha256(root))
        for sequence, program in ((1, now), (2, future_program())):
            if sequence == 2:
                fill(home.state)
                before = kept(home.state)
            medium = release(tmp_path / str(sequence), sequence, builder, program)
            install(medium, home, Options(), lambda _: [], lambda *_: None, migrate_state)
    assert home.active() == 2 and state.read_note(home.state).version == state.VERSION + 1
    opened = open_store(home.state / "jobs.sqlite", job_rows.STEPS)
    assert "note" in [row[1] for row in opened.execute("pragma table_info(jobs)")]
    opened.close()
    with locked(home):
        assert rollback(home) == 1
    assert kept(home.state) == before
    fill(home.state)
    assert kept(home.state)["jobs"] == before["jobs"] + 1
    assert migrate(home.state)["version"] == state.VERSION + 1


def test_a_release_that_cannot_read_the_state_is_not_used(builder: Builder, tmp_path: Path) -> None:
    home = Home(tmp_path / "home", Disk())
    write_first_root(tmp_path / "trust", builder)
    root = tmp_path / "trust" / "root.1.json"
    write_release(tmp_path / "1", 1, builder.release_key)
    write_release(tmp_path / "2", 2, builder.release_key)
    refusing = ["state migrate: the job store is damaged"]
    with locked(home):
        pin(home, root, file_sha256(root))
        install(tmp_path / "1", home, Options(), lambda _: [], lambda *_: None)
        with pytest.raises(VerificationError, match="the job store is damaged"):
            install(tmp_path / "2", home, Options(), lambda _: [], lambda *_: None, lambda *_: refusing)
    assert home.active() == 1 and home.installed() == [1]
