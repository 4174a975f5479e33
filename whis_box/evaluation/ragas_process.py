"""The parent's side of ragas: it runs in its own virtual environment and asks us for judgements and vectors.

Invariant: ragas gets no network, no key and no telemetry; a sample without a score is a failure that counts.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from whis_box.errors import EngineError, NotReadyError
from whis_box.evaluation.judge import Judge, JudgeFailedError
from whis_box.paths import repository_root

Embed = Callable[[Iterable[str]], NDArray[np.float32]]
SCRIPT = Path(__file__).with_name("ragas_child.py")


def ragas_python() -> Path:
    """The interpreter of ragas' environment: `WHIS_RAGAS_PYTHON`, else .venv-ragas.

    Raises: NotReadyError.
    """
    named = os.environ.get("WHIS_RAGAS_PYTHON")
    path = Path(named) if named else repository_root() / ".venv-ragas" / "bin" / "python"
    if not path.is_file():
        raise NotReadyError(f"{path}: ragas is not installed; run `make ragas`")
    return path


class Ragas:
    """A running child. One request at a time."""

    def __init__(self, embed: Embed, judge: Judge | None = None) -> None:
        """Start the child; it imports ragas while the caller goes on. Raises: NotReadyError."""
        self._embed, self._judge = embed, judge
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
        environment = keep | {"RAGAS_DO_NOT_TRACK": "true", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        self._child = subprocess.Popen(
            [str(ragas_python()), str(SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def score(self, metric: str, sample: dict[str, Any]) -> tuple[float | None, str]:
        """ragas' value of one sample, or None and why there is none.

        Raises: EngineError if the child ended.
        """
        self._send({"metric": metric, "sample": sample})
        while True:
            message = self._receive()
            if "judge" in message:
                self._send(self._judged(message["judge"]))
            elif "embed" in message:
                self._send({"vectors": self._embed(message["embed"]).tolist()})
            else:
                value = message["value"]
                return (None if value is None else float(value)), str(message["error"])

    def _judged(self, asked: dict[str, Any]) -> dict[str, str]:
        if self._judge is None:
            return {"failed": "there is no judge"}
        try:
            return {"json": self._judge.judge(asked["prompt"], asked["schema"])}
        except JudgeFailedError as cause:
            return {"failed": str(cause)}

    def _send(self, message: dict[str, Any]) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(message) + "\n")
            self._child.stdin.flush()
        except OSError:
            raise EngineError("the ragas process ended; its message is above") from None

    def _receive(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise EngineError("the ragas process ended; its message is above")
        message: dict[str, Any] = json.loads(line)
        return message

    def __enter__(self) -> Ragas:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
