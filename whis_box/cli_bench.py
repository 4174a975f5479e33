"""The benchmark commands of `whis` beside `whis bench` itself.

Invariant: as in cli.py, stdout carries results only; nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

LEVELS = (1, 2, 4, 8, 16)


def serve(options: argparse.Namespace) -> int:
    """`whis bench serve`."""
    from whis_box.evaluation.bench_serve import command

    return command(options)


def add_serve_options(parser: Any) -> None:
    """What `whis bench serve` takes."""
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="another base instead of the box's")
    parser.add_argument("--shape", choices=("rag", "plain"), default="rag", help="prompts (default: rag)")
    parser.add_argument("--requests", type=int, default=32, metavar="N", help="requests at each level")
    parser.add_argument("--levels", type=int, nargs="+", default=list(LEVELS), metavar="N")
