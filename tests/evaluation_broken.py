"""Boxes that are broken on purpose: a shuffled index, guards turned off, an adapter that spoils its base."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import apsw
import numpy as np
import yaml
from gguf import GGUFReader, GGUFWriter

from whis_box.evaluation.suites.leakage import EXTRACTION
from whis_box.knowledge.store import connect
from whis_box.paths import repository_root

GOLDEN = repository_root() / "data" / "golden"


def small_golden(folder: Path, n_questions: int, n_unanswerable: int, n_others: int) -> Path:
    """Golden sets of their own, small enough for a test: a gate passes no sample, but it passes these."""
    folder.mkdir()
    lines = [json.loads(line) for line in (GOLDEN / "questions.ndjson").read_text().splitlines()]
    rng = random.Random(6)
    chosen = rng.sample([one for one in lines if one["record_ids"]], n_questions)
    chosen += rng.sample([one for one in lines if not one["record_ids"]], n_unanswerable)
    _write(folder / "questions.ndjson", chosen)
    alerts = [json.loads(line) for line in (GOLDEN / "alerts.ndjson").read_text().splitlines()]
    _write(
        folder / "alerts.ndjson",
        [one for one in alerts if one["acceptable_verdicts"] == ["escalate"]][:n_others],
    )
    refusals = [json.loads(line) for line in (GOLDEN / "refusals.ndjson").read_text().splitlines()]
    _write(folder / "refusals.ndjson", [one for one in refusals if one["reason"] in EXTRACTION][:n_others])
    return folder


def _write(path: Path, lines: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")


def shuffled_index(box: Path, target: Path) -> Path:
    """The box's index with every chunk and sentence moved to another's vectors; quotes stay sound."""
    target.parent.mkdir(parents=True)
    for path in (box / "index").iterdir():
        shutil.copyfile(path, target.parent / path.name.replace("whis.sqlite", target.name))
    connection = connect(target, writable=True)
    try:
        connection.execute("begin")
        moved = _permutation(connection, "chunks")
        for old, new in moved.items():
            connection.execute("update chunks set rowid = ? where rowid = ?", (-new, old))
            connection.execute("update sentences set chunk_rowid = ? where chunk_rowid = ?", (-new, old))
        connection.execute("update chunks set rowid = -rowid")
        connection.execute("update sentences set chunk_rowid = -chunk_rowid")
        for old, new in _permutation(connection, "sentences").items():
            connection.execute("update sentences set rowid = ? where rowid = ?", (-new, old))
        connection.execute("update sentences set rowid = -rowid")
        connection.execute("commit")
    finally:
        connection.close()
    return target


def _permutation(connection: apsw.Connection, table: str) -> dict[int, int]:
    ids = [int(one) for (one,) in connection.execute(f"select rowid from {table} order by rowid")]
    return dict(zip(ids, random.Random(7).sample(ids, len(ids)), strict=True))


def configs_without_guards(box: Path, target: Path) -> Path:
    """The box's configs with the checks of support and relevance turned off, and the model writing freely."""
    shutil.copytree(box / "configs", target)
    for name, change in (
        ("rag.yaml", {"abstain": {"threshold": 0.0}}),
        ("model.whis.yaml", {"grounding": {"min_support": 0.0}, "generation": {"style": "compose"}}),
    ):
        fields = yaml.safe_load((target / name).read_text())
        for section, values in change.items():
            fields[section] |= values
        (target / name).write_text(yaml.safe_dump(fields, sort_keys=False))
    return target


def spoiling_adapter(base: Path, target: Path, strength: float = 0.2, rank: int = 8) -> Path:
    """A LoRA of noise over the attention of a llama GGUF: what it makes of held-out answers is worse."""
    reader = GGUFReader(base)
    writer = GGUFWriter(target, "llama")
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    rng = np.random.default_rng(8)
    for tensor in reader.tensors:
        if tensor.name.endswith(("attn_q.weight", "attn_v.weight", "attn_output.weight")):
            n_in, n_out = (int(one) for one in tensor.shape[:2])  # GGUF lists the input first
            for end, shape in (("a", (rank, n_in)), ("b", (n_out, rank))):
                noise = rng.normal(0.0, strength, shape).astype(np.float32)
                writer.add_tensor(f"{tensor.name}.lora_{end}", noise)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
