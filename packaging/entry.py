"""The frozen program's first lines."""

import multiprocessing
import os
import sys

BUILD_HOST_COMMANDS = {("ingest",), ("redact",), ("index", "build"), ("index", "purge"), ("box", "build")}


def main() -> int:
    """Undo a switch that was never confirmed, then run the command."""
    from whis_box.errors import EXIT_USAGE, WhisError
    from whis_box.paths import installed_home

    given = sys.argv[1:]
    if {tuple(given[:1]), tuple(given[:2])} & BUILD_HOST_COMMANDS:
        print(
            f"whis: `whis {' '.join(given[:2])}` runs on the build host, from the repository", file=sys.stderr
        )
        return EXIT_USAGE
    home = installed_home()
    if home is not None and given[:1] != ["engine-worker"]:
        from whis_box.box.slots import settle_at_start

        try:
            undone = settle_at_start(home)
        except WhisError as error:
            print(f"whis: {error}", file=sys.stderr)
            return error.exit_code
        if undone:
            print(f"whis: {undone}", file=sys.stderr)
            program = home / "current" / "whis"
            if program.is_file():
                os.execv(program, [str(program), *given])
    from whis_box.cli import main as run

    return run()


if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(main())
