"""libllama and every CPU backend, once each, in llama_cpp/lib.

Only the low-level binding is taken. Nothing refers to the backends, so no analysis finds them; and a wheel
holds each library under three names (a link became a copy), of which one is opened.
"""

from pathlib import Path

from PyInstaller.utils.hooks import get_package_paths

_LIBRARY = Path(get_package_paths("llama_cpp")[1]) / "lib"
# The binding opens the first by name; they find one another by their sonames.
_OPENED = ("libllama.so", "libggml.so.0", "libggml-base.so.0")

binaries = [
    (str(path), "llama_cpp/lib")
    for path in [*(_LIBRARY / name for name in _OPENED), *sorted(_LIBRARY.glob("libggml-cpu-*.so"))]
]
hiddenimports = ["llama_cpp.llama_cpp", "llama_cpp._ctypes_extensions"]
excludedimports = [
    "llama_cpp.llama",
    "llama_cpp.server",
    "llama_cpp.llava_cpp",
    "llama_cpp._ggml",
    "jinja2",
    "diskcache",
]
