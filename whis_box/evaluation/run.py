"""`whis eval run`: ask what has not been asked yet, score, and keep results, records and report together.

Invariant: equal digests, golden sets, code and seed lead to the same folder, where a run that was cut off
goes on; the scores come from the records alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from whis_box.box.opening import engine_spec, read_lineage
from whis_box.config import BoxConfig, ModelConfig, RagConfig, describe_validation, load_config
from whis_box.engine import cpu
from whis_box.engine.protocol import LaneSpec
from whis_box.errors import InputError, NotReadyError, VerificationError
from whis_box.evaluation import heldout, judging
from whis_box.evaluation.bench import environment, peak_memory_mb
from whis_box.evaluation.evidence import Evidence, Records
from whis_box.evaluation.journal import Journal, Observation, code_digest
from whis_box.evaluation.observe import Golden, missing_records, observe, opened, read_sets, tasks
from whis_box.evaluation.results import RunResult
from whis_box.evaluation.settings import EvalConfig
from whis_box.evaluation.subject import Subject, parse_subject
from whis_box.evaluation.suites import SUITES
from whis_box.evaluation.suites.fine_tune import as_text
from whis_box.knowledge.embedder import Embedder
from whis_box.paths import file_sha256, read_text, repository_root, written_beside
from whis_box.schemas import Lineage

RESULTS = "results.json"
RECORDS = "observations.ndjson"
COMPARED = ("retrieval", "answers", "triage", "fine_tune")
ASKED_OF_THE_BOX = ("search", "ask", "refusal", "triage", "attack")


@dataclass(frozen=True)
class Settings:
    """What to run, on what."""

    config: EvalConfig
    golden: Path
    dataset: Path
    out: Path
    """Folder that run folders lie in."""
    suites: Sequence[str] = ()
    attacks: Path | None = None
    """The attack corpus; it lies apart from the golden sets, which training data is compared with."""
    sample: int = 0
    allow_missing: bool = False
    undefended: Path | None = None
    """Run folder of the same questions on a box without guards."""

    @property
    def chosen(self) -> list[str]:
        """The suites to run.

        Raises: InputError for one that does not exist.
        """
        names = list(self.suites) or self.config.suites
        if unknown := sorted(set(names) - set(SUITES)):
            raise InputError(f"no suite {', '.join(unknown)}; there are {', '.join(SUITES)}")
        return names


def run(subject: Subject, settings: Settings) -> tuple[RunResult, Path]:
    """Evaluate; the results and the folder they were written to.

    Raises: InputError for bad golden files or records that the index lacks; as `open_box`.
    """
    names = settings.chosen
    golden = read_sets(settings.golden, settings.sample, settings.config.seed, settings.attacks)
    lineage = read_lineage(subject.box, subject.adapter)
    index = subject.box / load_config(subject.box / "configs" / "box.yaml", BoxConfig).index
    missing = missing_records(golden, index)
    if missing and not settings.allow_missing:
        raise InputError(
            f"{settings.golden}: {len(missing)} records that questions name are not in the index: "
            f"{', '.join(missing[:20])}; build the index from the same documents, or --allow-missing-records"
        )
    binding = _binding(lineage, golden, settings)
    folder = settings.out / f"{_plain(subject.name)}-{_digest(binding)[:12]}"
    with (
        Journal(folder / RECORDS, binding) as journal,
        _evidence(subject, settings, golden, journal) as found,
    ):
        _observe_all(subject, settings, found, journal, {need for name in names for need in SUITES[name][0]})
        result = RunResult(
            subject=subject.name,
            lineage=lineage,
            golden=golden.sha256,
            code=binding["code"],
            seed=settings.config.seed,
            sample=settings.sample,
            environment=environment(subject.box),
            suites=[SUITES[name][1](replace(found, memory_mb=_memory(journal))) for name in names],
            missing_records=missing,
        )
    write_results(folder, result)
    return result, folder


def _binding(lineage: Lineage, golden: Golden, settings: Settings) -> dict[str, Any]:
    judge, heldout_file = settings.config.judge.model, settings.dataset / "test.ndjson"
    return {
        "lineage": lineage.model_dump(),
        "golden": golden.sha256,
        "code": code_digest(),
        "seed": settings.config.seed,
        "sample": settings.sample,
        "judge": judge,
        "judge_pairs": file_sha256(pairs)
        if (pairs := settings.golden / "judge.ndjson").is_file()
        else "none",
        "heldout": file_sha256(heldout_file) if heldout_file.is_file() else "none",
    }


def _digest(binding: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(binding, sort_keys=True).encode()).hexdigest()


def _plain(name: str) -> str:
    return "".join(one if one.isalnum() or one in "@._-" else "-" for one in name)[-60:]


@contextmanager
def _evidence(subject: Subject, settings: Settings, golden: Golden, journal: Journal) -> Iterator[Evidence]:
    box = load_config(subject.box / "configs" / "box.yaml", BoxConfig)
    rag = load_config(subject.box / "configs" / "rag.yaml", RagConfig)
    records = Records(subject.box / box.index)
    try:
        yield Evidence(
            golden=golden,
            seen=journal.seen,
            records=records,
            embed=Embedder(subject.box / box.embedder, rag.embedder_dim, cpu.thread_count()).embed,
            config=settings.config,
            lineage=read_lineage(subject.box, subject.adapter),
            adapter=subject.adapter,
            dataset=settings.dataset,
            undefended=read_observations(settings.undefended) if settings.undefended else {},
        )
    finally:
        records.close()


def _observe_all(
    subject: Subject, settings: Settings, evidence: Evidence, journal: Journal, needs: set[str]
) -> None:
    asked = list(tasks(evidence.golden, [kind for kind in ASKED_OF_THE_BOX if kind in needs]))
    todo = [one for one in asked if (one.kind, one.id) not in journal.seen]
    if todo:
        with opened(subject) as copilot:
            observe(copilot, journal, todo)
            memory = str(peak_memory_mb(copilot.engine_pid))
            journal.add(Observation(kind="memory", id="peak_mb", seconds=0.0, text=memory))
    if "heldout" in needs:
        _observe_heldout(subject, settings, journal)
    if "ragas" in needs:
        judging.observe_ragas(evidence, journal)
    if "judge" in needs:
        judging.observe_judge(evidence, journal, settings.golden / "judge.ndjson", subject.box)


def _observe_heldout(subject: Subject, settings: Settings, journal: Journal) -> None:
    path = settings.dataset / "test.ndjson"
    if not path.is_file():
        return
    wanted = settings.sample or settings.config.heldout_samples
    samples = heldout.read_samples(path, wanted, settings.config.seed)
    box = load_config(subject.box / "configs" / "box.yaml", BoxConfig)
    model = load_config(subject.box / "configs" / "model.whis.yaml", ModelConfig)
    base = engine_spec(subject.box / box.base_model, model)
    specs = {"heldout": base}
    if subject.adapter is not None:
        adapter = (LaneSpec("base", str(subject.adapter.absolute())),)
        specs = {"heldout": replace(base, lanes=adapter), "heldout_base": base}
    for kind, spec in specs.items():
        missing = [one for one in samples if (kind, one.id) not in journal.seen]
        for scored in heldout.score(spec, missing, kind) if missing else []:
            journal.add(Observation(kind=kind, id=scored.id, seconds=0.0, text=as_text(scored)))


def _memory(journal: Journal) -> float | None:
    seen = journal.seen.get(("memory", "peak_mb"))
    return float(seen.text) if seen is not None and seen.text else None


def read_observations(folder: Path) -> dict[tuple[str, str], Observation]:
    """What a run kept.

    Raises: NotReadyError if the folder holds no run; StorageError.
    """
    lines = read_text(folder / RECORDS, "name a run folder").splitlines()[1:]
    seen = [Observation.model_validate_json(line) for line in lines]
    return {(one.kind, one.id): one for one in seen}


def write_results(folder: Path, result: RunResult) -> None:
    """Write results.json. Raises: StorageError."""
    with written_beside(folder / RESULTS) as beside:
        beside.write_text(result.model_dump_json(indent=1) + "\n", encoding="utf-8")


def default_dataset() -> Path:
    """The newest version of the training dataset."""
    folder = repository_root() / "data" / "datasets" / "whis-soc"
    versions = sorted((one for one in folder.glob("*") if one.name.isdigit()), key=lambda one: int(one.name))
    return versions[-1] if versions else folder / "1"


def newest_run(out: Path) -> Path:
    """The run folder whose results are the newest.

    Raises: NotReadyError.
    """
    found = sorted(out.glob(f"*/{RESULTS}"), key=lambda one: one.stat().st_mtime)
    if not found:
        raise NotReadyError(f"{out}: holds no run; run `whis eval run`")
    return found[-1].parent


def run_or_read(text: str, box: Path, settings: Settings) -> RunResult:
    """The results of a run folder, or those of the subject that `text` names, run if need be.

    Raises: as `run` and `parse_subject`.
    """
    if (Path(text) / RESULTS).is_file():
        try:
            return RunResult.model_validate_json(read_text(Path(text) / RESULTS))
        except ValidationError as cause:
            raise VerificationError(describe_validation(text, cause)) from None
    suites = settings.suites or COMPARED
    return run(parse_subject(text, box, settings.out / "boxes"), replace(settings, suites=suites))[0]
