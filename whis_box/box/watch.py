"""A running box looks at itself: every file is hashed again, one after another, without being noticed.

Invariant: a problem is reported once, by the name of its file; whoever runs the box decides what to do then.
What is in use already is not exchanged by a changed file: the weights were hashed and loaded through one open
file (engine/held.py), the embedder is in memory; the index is read by name, page by page.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from whis_box.box.manifest import Manifest, check_file
from whis_box.errors import StorageError

DEFAULT_ROUND_S = 6 * 3600.0


class Watch:
    """Re-checks a box in a thread; used as a context manager, it ends with the block."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        on_problem: Callable[[str], None],
        round_s: float = DEFAULT_ROUND_S,
    ) -> None:
        """`round_s` is the time in which every file is looked at once; the pauses are between files."""
        self._folder, self._manifest, self._on_problem = folder, manifest, on_problem
        self._pause_s = round_s / max(1, len(manifest.files))
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="box-watch", daemon=True)
        self.rounds = 0

    def _run(self) -> None:
        known: set[str] = set()
        while not self._stopped.is_set():
            for entry in self._manifest.files:
                if self._stopped.wait(self._pause_s):
                    return
                problem = self._problem(entry.path)
                if problem and entry.path not in known:
                    known.add(entry.path)
                    self._on_problem(problem)
            self.rounds += 1

    def _problem(self, path: str) -> str:
        try:
            return check_file(self._folder, self._manifest.entry(path))
        except StorageError as error:
            return str(error)

    def start(self) -> None:
        """Begin the first round."""
        self._thread.start()

    def stop(self) -> None:
        """End between two files."""
        self._stopped.set()
        self._thread.join()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
