"""Whatever fails, at whatever operation: an installed box is the old one or the new one, and it is whole.

Each scenario is run once to count its operations, then once for every operation and every kind of fault.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.cut_points import memory_folder, run_once, try_every_cut
from tests.faulty_disk import FaultyDisk
from tests.small_release import Builder, new_builder, write_first_root, write_release
from whis_box.box.install import Migrate, Options, install, pin
from whis_box.box.manifest import verify
from whis_box.box.packs import apply_pack, build_pack
from whis_box.box.slots import Home, locked, rollback, settle, settle_at_start
from whis_box.durable import Disk, write_file
from whis_box.state import VERSION, read_note, write_note

Scenario = Callable[[Home, Path], None]


def healthy(_folder: Path) -> list[str]:
    return []


def silent(_path: str, _size: int) -> None:
    pass


def bring(home: Home, medium: Path) -> None:
    with locked(home):
        install(medium, home, Options(), healthy, silent, noting_state(home))


def unpack(home: Home, medium: Path) -> None:
    with locked(home):
        apply_pack(
            medium.parent / f"pack-{medium.name}", home, Options(), healthy, silent, noting_state(home)
        )


def noting_state(home: Home) -> Migrate:
    """The new release's part: a note in the state folder, on the same disk."""

    def migrate(_release: Path, state: Path) -> list[str]:
        write_note(state, home.disk)
        return []

    return migrate


def go_back(home: Home, _medium: Path) -> None:
    with locked(home):
        rollback(home)


SCENARIOS: dict[str, tuple[Scenario, list[int], int]] = {
    # name: what is done, the releases installed before, the medium's release
    "first install": (bring, [], 1),
    "update": (bring, [1], 2),
    "update that prunes": (bring, [1, 2, 3], 4),
    "content pack": (unpack, [1], 2),
    "rollback": (go_back, [1, 2], 2),
}


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as folder:
        yield folder


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[Builder, Path]:
    folder = tmp_path_factory.mktemp("media")
    builder = new_builder()
    write_first_root(folder / "trust", builder)
    for sequence in (1, 2, 3, 4):
        write_release(folder / str(sequence), sequence, builder.release_key)
    build_pack(folder / "1", folder / "2", folder / "pack-2", builder.release_key)
    return builder, folder


def prepared(folder: Path, media: Path, before: list[int]) -> Home:
    home = Home(folder, Disk())
    root = media / "trust" / "root.1.json"
    with locked(home):
        pin(home, root, hashlib.sha256(root.read_bytes()).hexdigest())
    for sequence in before:
        bring(home, media / str(sequence))
    (home.state / "audit.ndjson").write_text("kept\n")
    return home


def check_whole(folder: Path, builder: Builder, allowed: set[int | None]) -> int | None:
    """What a start finds: the release in use, which must be whole and one of `allowed`."""
    settle_at_start(folder)
    home = Home(folder, Disk())
    active = home.active()
    assert active in allowed, f"release {active} is in use, expected one of {allowed}"
    if active is not None:
        manifest, _ = verify(home.current.resolve(), [builder.release_key.public])
        assert manifest.sequence == active
    for sequence in set(home.installed()) & allowed - {active}:  # in use or not, what has its name is whole
        verify(home.release(sequence), [builder.release_key.public])
    assert (home.state / "audit.ndjson").read_text() == "kept\n"
    assert read_note(home.state).version in (0, VERSION)
    assert home.record().pending is None
    return active


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_cut_leaves_old_or_new(name: str, media: tuple[Builder, Path], fast: Path) -> None:
    scenario, before, medium_sequence = SCENARIOS[name]
    builder, media_folder = media
    medium = media_folder / str(medium_sequence)
    start, target = fast / "start", fast / "home"
    old = prepared(start, media_folder, before).active()
    shutil.copytree(start, target, symlinks=True)
    n_operations = run_once(scenario_on(scenario, medium), target, "none", 0).count
    new = check_whole(target, builder, {1, 2, 3, 4})
    assert new != old and n_operations > 10

    def again(folder: Path) -> None:
        bring(Home(folder, FaultyDisk(folder)), medium)
        assert check_whole(folder, builder, {new}) == new

    cuts, seen = try_every_cut(
        start,
        target,
        scenario_on(scenario, medium),
        lambda folder: check_whole(folder, builder, {old, new}),
        again if scenario is bring else None,
    )
    assert seen == {old, new}
    print(f"{name}: {n_operations} operations, {cuts} cut points")
    COUNTED[name] = cuts


def scenario_on(scenario: Scenario, medium: Path) -> Callable[[FaultyDisk], None]:
    return lambda disk: scenario(Home(disk.root, disk), medium)


COUNTED: dict[str, int] = {}


def test_at_least_a_thousand_cut_points_were_tried() -> None:
    if len(COUNTED) != len(SCENARIOS):
        pytest.skip("counts only when all scenarios ran in this process")
    assert sum(COUNTED.values()) >= 1000, COUNTED


def test_the_power_model_forgets_what_was_not_synced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    disk = FaultyDisk(tmp_path / "home")
    handle = disk.create(tmp_path / "home" / "a")
    disk.write(handle, b"bytes")
    os.close(handle)
    disk.after_power_cut(tmp_path / "lost", None)
    assert not (tmp_path / "lost" / "a").exists()
    disk.sync_folder(tmp_path / "home")
    disk.after_power_cut(tmp_path / "lost", None)
    assert (tmp_path / "lost" / "a").read_bytes() == b""


def test_a_writer_that_skips_the_sync_is_caught(tmp_path: Path) -> None:
    """The harness can fail: an installer without fsync would lose its record."""
    (tmp_path / "home").mkdir()

    class Careless(FaultyDisk):
        def sync(self, handle: int) -> None:
            self.step("sync", "")

    disk = Careless(tmp_path / "home")
    write_file(disk, tmp_path / "home" / "record.json", [b"old or new"])
    disk.after_power_cut(tmp_path / "after", None)
    assert (tmp_path / "after" / "record.json").read_bytes() == b""


def test_settling_twice_changes_nothing(media: tuple[Builder, Path], tmp_path: Path) -> None:
    home = prepared(tmp_path / "home", media[1], [1])
    with locked(home):
        assert settle(home) == "" and settle(home) == ""
    assert cast(int, home.active()) == 1
