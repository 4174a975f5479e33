"""MLflow in local files: the only module that imports it.

Invariant: nothing leaves the machine; a run that cannot be recorded stops at its start, not at its end.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from train.config import TrackingSection, TrainConfig

# Read by mlflow at import. Source: mlflow/environment_variables.py, 3.17.2.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")


class Tracker:
    """One MLflow run, or nothing when tracking is off or another process keeps it."""

    def __init__(self, config: TrainConfig, lineage: dict[str, Any], run_id: str, active: bool) -> None:
        """Start a run, or go on with `run_id`."""
        self.run_id = run_id
        self._client: Any = None
        if not active or config.tracking.store == "none":
            return
        self._client = client(config.tracking)
        if run_id:
            return
        experiment = _experiment(self._client, config.tracking)
        name = f"{config.adapter.name} {config.adapter.version}"
        tags = {"commit": lineage["commit"], "dataset": lineage["dataset"]}
        self.run_id = self._client.create_run(experiment, run_name=name, tags=tags).info.run_id
        for key, value in _flat(config.model_dump(mode="json") | {"lineage": lineage}).items():
            self._client.log_param(self.run_id, key, value)

    def metrics(self, figures: dict[str, float], step: int) -> None:
        """One point of each curve."""
        if self._client is not None:
            for key, value in figures.items():
                if key != "step":
                    self._client.log_metric(self.run_id, key, value, step=step)

    def finish(self, folder: Path, figures: dict[str, float]) -> None:
        """The last figures and the files of the run."""
        if self._client is None:
            return
        for key, value in figures.items():
            self._client.log_metric(self.run_id, f"final_{key}", float(value))
        for path in sorted(folder.iterdir()):
            if path.is_file():
                self._client.log_artifact(self.run_id, str(path))
        self._client.log_artifacts(self.run_id, str(folder / "adapter"), "adapter")
        self._client.set_terminated(self.run_id)


def client(section: TrackingSection) -> Any:
    """An MLflow client on the local store."""
    folder = section.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if section.store == "file":
        # Since 3.13 the plain folder store is refused unless this is set.
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow

    return mlflow.MlflowClient(store_uri(section))


def store_uri(section: TrackingSection) -> str:
    """What `mlflow ui --backend-store-uri` wants."""
    folder = section.folder.absolute()
    return f"sqlite:///{folder / 'mlflow.db'}" if section.store == "sqlite" else (folder / "runs").as_uri()


def _experiment(opened: Any, section: TrackingSection) -> str:
    found = opened.get_experiment_by_name(section.experiment)
    if found is not None:
        return str(found.experiment_id)
    location = (section.folder.absolute() / "artifacts").as_uri()
    return str(opened.create_experiment(section.experiment, artifact_location=location))


def _flat(fields: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = str(value)
    return flat
