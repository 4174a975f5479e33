"""The low-level libllama binding, without the high-level package around it.

Invariant: no folder but the wheel's own is searched for libraries, and libllama's log goes to `logging`.
"""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import os
import sys
import types
from pathlib import Path
from typing import Any

from whis_box.errors import NotReadyError

log = logging.getLogger("whis_box.engine.native")

# Each of these lets the environment plant a library or a backend.
PLANTING_VARIABLES = ("GGML_BACKEND_PATH", "LLAMA_CPP_LIB_PATH", "LLAMA_CPP_LIB", "GGML_BACKEND_DIR")

# Said as warnings, once per tensor of an adapter; nothing can or need be done about them.
USUAL = ("cannot use buft",)

_keep_alive: list[Any] = []  # ctypes callbacks must outlive the library's use of them


def library_dir() -> Path:
    """Folder of libllama and of the CPU backends.

    Raises: NotReadyError when llama-cpp-python is not installed.
    """
    if "llama_cpp" in sys.modules:
        return Path(sys.modules["llama_cpp"].__path__[0]) / "lib"
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise NotReadyError(
            "llama_cpp is not installed: run `make demo`, which builds it with explicit CPU flags"
        )
    return Path(spec.submodule_search_locations[0]) / "lib"


def load() -> Any:
    """Import `llama_cpp.llama_cpp` alone.

    The package's `__init__` would also import its high-level classes, a template engine and a pickling disk
    cache (CVE-2025-69872), none of which Whis Box uses.
    """
    for name in PLANTING_VARIABLES:
        os.environ.pop(name, None)
    if "llama_cpp" not in sys.modules:
        package = types.ModuleType("llama_cpp")
        package.__path__ = [str(library_dir().parent)]
        sys.modules["llama_cpp"] = package
    binding = importlib.import_module("llama_cpp.llama_cpp")
    _route_log(binding)
    return binding


def _route_log(binding: Any) -> None:
    if _keep_alive:
        return
    levels = {2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}  # GGML_LOG_LEVEL_*; info is noise here

    @binding.llama_log_callback  # type: ignore[untyped-decorator]
    def emit(level: int, text: bytes, _user_data: Any) -> None:
        said = text.decode("utf-8", "replace").rstrip()
        usual = any(one in said for one in USUAL)
        log.log(logging.DEBUG if usual else levels.get(level, logging.DEBUG), "%s", said)

    _keep_alive.append(emit)
    binding.llama_log_set(emit, ctypes.c_void_p(0))
