"""Lineage, both ways: where one record ended up, and what one dataset or adapter was made from.

Read from what the makers left behind: the corpus, the index, the manifest and record list of each dataset,
and the manifest of each adapter, which names its dataset by hash.
Invariant: an adapter counts as holding a record if its dataset's hash is that of a dataset that lists it; a
dataset that is not here is reported as such, never as clean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from whis_box.errors import InputError, NotReadyError, VerificationError
from whis_box.ingest.corpus import open_existing
from whis_box.knowledge.store import connect, fetch
from whis_box.paths import read_text


class Lineage:
    """What is known on this host; every path is looked at when it is asked for."""

    def __init__(self, corpus: Path, index: Path, datasets: Path, adapters: Path) -> None:
        """`datasets` holds <name>/<version>/manifest.json and records.ndjson, `adapters` a manifest each."""
        self._corpus, self._index = corpus, index
        self._datasets, self._adapters = datasets, adapters

    def of_record(self, record_id: str) -> dict[str, object]:
        """The corpus entry, the index, and the datasets and adapters that hold the record.

        Raises: InputError if nothing here knows it; NotReadyError without a corpus; VerificationError.
        """
        with open_existing(self._corpus) as corpus:
            record, purged = corpus.record(record_id), corpus.is_purged(record_id)
        datasets = [one for one in self._manifests(self._datasets) if record_id in self._records_of(one)]
        hashes = {str(one["sha256"]) for one in datasets}
        trained = list(self._manifests(self._adapters))
        chunks = self._chunks(record_id)
        if record is None and not purged and not datasets and not chunks:
            raise InputError(
                f"{record_id}: not in the corpus, index or a dataset; `whis search` shows record ids"
            )
        known = {str(one["sha256"]) for one in self._manifests(self._datasets)}
        return {
            "record": record_id,
            "source": record.source.model_dump() if record is not None else None,
            "license": record.license if record is not None else None,
            "in_corpus": record is not None,
            "purged": purged,
            "index_chunks": chunks,
            "datasets": [_name(one) for one in datasets],
            "adapters": [_name(one) for one in trained if _dataset_of(one) in hashes],
            "adapters_of_unknown_datasets": [_name(one) for one in trained if _dataset_of(one) not in known],
        }

    def of_dataset(self, name: str) -> dict[str, object]:
        """What went into `name/version`.

        Raises: InputError if it is not here.
        """
        manifest = self._named(self._datasets, name)
        fields = ("sha256", "examples", "records_by_source", "records_by_license", "pipeline_version")
        return {
            "dataset": _name(manifest),
            **{field: manifest.get(field) for field in fields},
            "records": sorted(self._records_of(manifest)),
            "adapters": [
                _name(one)
                for one in self._manifests(self._adapters)
                if _dataset_of(one) == manifest["sha256"]
            ],
        }

    def of_adapter(self, name: str) -> dict[str, object]:
        """Base, dataset and, if that is here, the records that went into the adapter `name/version`.

        Raises: InputError if it is not here.
        """
        manifest = self._named(self._adapters, name)
        datasets = [one for one in self._manifests(self._datasets) if one["sha256"] == _dataset_of(manifest)]
        return {
            "adapter": _name(manifest),
            "base": manifest.get("base"),
            "dataset_sha256": _dataset_of(manifest),
            "dataset": self.of_dataset(_name(datasets[0])) if datasets else "not on this host",
        }

    def _chunks(self, record_id: str) -> int:
        if not self._index.is_file():
            return 0
        connection = connect(self._index)
        [(count,)] = fetch(connection, "select count(*) from chunks where record_id = ?", (record_id,))
        connection.close()
        return int(count)

    def _named(self, folder: Path, name: str) -> dict[str, object]:
        known = list(self._manifests(folder))
        found = [one for one in known if _name(one) == name]
        if not found:
            listed = ", ".join(_name(one) for one in known) or "none"
            raise InputError(f"{folder}: no {name!r}; here are: {listed} (give NAME/VERSION)")
        return found[0]

    @staticmethod
    def _manifests(folder: Path) -> Iterator[dict[str, object]]:
        for path in sorted(folder.glob("*/*/manifest.json")):
            try:
                fields = json.loads(read_text(path))
                complete = {"name", "version", "sha256"} <= set(fields)
            except (ValueError, TypeError) as cause:
                raise VerificationError(f"{path}: not a manifest ({cause}); make it again") from None
            if not complete:
                raise VerificationError(f"{path}: name, version or sha256 is missing; make it again")
            yield {**fields, "folder": str(path.parent)}

    @staticmethod
    def _records_of(manifest: dict[str, object]) -> set[str]:
        path = Path(str(manifest["folder"])) / "records.ndjson"
        if not path.is_file():
            raise NotReadyError(f"{path}: missing; run `python -m train.dataset` to make it again")
        return {str(json.loads(line)["id"]) for line in read_text(path).splitlines()}


def _name(manifest: dict[str, object]) -> str:
    return f"{manifest['name']}/{manifest['version']}"


def _dataset_of(adapter: dict[str, object]) -> str:
    dataset = adapter.get("dataset")
    return str(dataset.get("sha256", "")) if isinstance(dataset, dict) else ""
