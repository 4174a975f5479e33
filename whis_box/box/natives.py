"""What a frozen program carries beside Python distributions: the interpreter, libraries of the build host.

Invariant: name and version are the package manager's; where it knows nothing, "unknown" is said.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from urllib.parse import quote

from whis_box.box.libraries import Library

INTERPRETER = "cpython"
DOCUMENTS = Path("/usr/share/doc")
# By how the file's name begins; package managers do not say it in a form that can be read.
_LICENSES = {
    "libbz2": "bzip2-1.0.6",
    "libcrypto": "Apache-2.0",
    "libexpat": "MIT",
    "libffi": "MIT",
    "libgcc_s": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libgomp": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "liblzma": "LicenseRef-public-domain",
    "libncurses": "X11",
    "libreadline": "GPL-3.0-or-later",
    "libsqlite3": "blessing",
    "libssl": "Apache-2.0",
    "libstdc++": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libtinfo": "X11",
    "libuuid": "BSD-3-Clause",
    "libz": "Zlib",
}


def interpreter() -> Library:
    """The Python that runs this."""
    version = platform.python_version()
    return Library(
        name=INTERPRETER,
        version=version,
        license="PSF-2.0",
        homepage="https://www.python.org",
        purl=f"pkg:generic/{INTERPRETER}@{version}",
    )


def system_library(path: Path) -> Library:
    """The package that a library of this system belongs to."""
    stem = path.name.split(".so")[0].split("-")[0]
    license_ = _LICENSES.get(stem, "not stated")
    package, version = _package(path)
    if not package:
        return Library(
            name=stem, version="unknown", license=license_, purl=f"pkg:generic/{quote(stem, safe='')}"
        )
    purl = f"pkg:deb/debian/{quote(package, safe='')}@{quote(version, safe='')}"
    return Library(name=package, version=version, license=license_, purl=purl)


def native_license_text(library: Library) -> str:
    """Its licence text as this build host has it, empty where it has none."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    place = stdlib / "LICENSE.txt" if library.name == INTERPRETER else DOCUMENTS / library.name / "copyright"
    return place.read_text(encoding="utf-8", errors="replace").strip() if place.is_file() else ""


def _package(path: Path) -> tuple[str, str]:
    """Debian's package and version, empty where there is none."""
    if shutil.which("dpkg-query") is None:
        return "", ""
    for place in (path, path.resolve(), Path(f"/usr{path}"), Path(str(path).removeprefix("/usr"))):
        found = _said("--search", str(place))
        if found:
            package = found.split(":")[0]
            return package, _said("--show", "--showformat=${Version}", package)
    return "", ""


def _said(*arguments: str) -> str:
    done = subprocess.run(["dpkg-query", *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""
