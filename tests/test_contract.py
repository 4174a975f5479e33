"""What holds for the whole tree: import order, layout, configs, and what a running box must not import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tui.settings import TuiConfig
from whis_box.config import BoxConfig, ModelConfig, RagConfig, Section, load_config
from whis_box.errors import ConfigError, NotReadyError
from whis_box.evaluation.settings import EvalConfig
from whis_box.paths import repository_root

ROOT = repository_root()
# Left never imports right; parts of one tier do not import each other, but for the exceptions below.
TIERS = [
    {"errors", "paths", "durable"},
    {"schemas"},
    {"config"},
    {"prompts", "engine", "knowledge", "guards", "audit", "gates", "state"},
    {"ingest", "rollout"},
    {"copilot", "exports", "outgoing"},
    {"server", "evaluation", "box", "doctor", "machine", "show", "batch"},
    {"cli_bench", "cli_box", "cli_eval", "cli_export", "cli_ingest"}
    | {"cli_install", "cli_rollout", "cli_serve", "cli_state"},
    {"cli"},
]
WITHIN_A_TIER = {
    ("paths", "durable"),
    ("paths", "errors"),
    ("durable", "errors"),
    ("show", "doctor"),
    ("guards", "knowledge"),
    ("guards", "prompts"),
    ("doctor", "box"),
    ("doctor", "machine"),
    ("cli_box", "cli_install"),
    ("machine", "box"),
    ("evaluation", "box"),
    ("server", "box"),
    ("server", "batch"),
    ("evaluation", "show"),
}
BUILD_HALF = ("convert", "train")
ALLOWED = ("errors", "paths", "schemas", "config", "prompts", "engine")
# The wire's models, and readers of alerts that load nothing.
TERMINAL_MAY = (
    "batch", "config", "errors", "ingest.alerts", "paths", "rollout.state", "schemas", "server.wire",
)  # fmt: skip
# What training must do exactly as serving does: cut and hash text, read a corpus and an alert, retrieve the
# facts of a prompt and the techniques that are offered.
SHARED_WITH_SERVING = (
    "guards.linear",
    "guards.output",
    "guards.views",
    "ingest.alerts",
    "ingest.corpus",
    "ingest.pipeline",
    "ingest.sanitize.pieces",
    "ingest.sources",
    "knowledge.embedder",
    "knowledge.evidence",
    "knowledge.retriever",
    "knowledge.sentences",
    "knowledge.techniques",
    "knowledge.terms",
)


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """(top package, second part) of every import in a file."""
    for name in modules(path):
        yield name.split(".")[0], (name.split(".") + [""])[1]


def modules(path: Path) -> Iterator[str]:
    """The module behind every import in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [
                f"{node.module}.{alias.name}" if node.module == "whis_box" else node.module
                for alias in node.names
            ]
        yield from names


def tier_of(part: str) -> int:
    return next(number for number, tier in enumerate(TIERS) if part in tier)


def test_the_import_order_of_the_design_holds() -> None:
    wrong = []
    for path in (ROOT / "whis_box").rglob("*.py"):
        own = path.relative_to(ROOT / "whis_box").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for top, part in imports(path):
            if top == "tui" and own == "cli":
                continue  # `whis tui` is registered there
            if top in {"convert", "train", "tui", "tests"}:
                wrong.append(f"{path.name} imports {top}")
            if top == "whis_box" and part and not part.startswith("_") and part != own:
                same = tier_of(part) == tier_of(own) and (own, part) not in WITHIN_A_TIER
                if tier_of(part) > tier_of(own) or same:
                    wrong.append(f"{own} ({path.name}) imports {part}")
    assert not wrong


def test_the_terminal_imports_only_contracts_and_readers_and_one_module_of_it_talks_http() -> None:
    network = {"httpx", "socket", "urllib", "requests", "aiohttp", "http"}
    for path in (ROOT / "tui").rglob("*.py"):
        for module in modules(path):
            name = module.removeprefix("whis_box.")
            fits = any(name == one or name.startswith(f"{one}.") for one in TERMINAL_MAY)
            assert fits or not module.startswith("whis_box"), f"{path} imports {module}"
            assert module.split(".")[0] not in network or path.name == "connection.py", (
                f"{path} imports {module}"
            )


def test_the_build_half_imports_only_what_it_may() -> None:
    for folder in BUILD_HALF:
        for path in (ROOT / folder).rglob("*.py"):
            for module in modules(path):
                name = module.removeprefix("whis_box.")
                fits = name.split(".")[0] in ALLOWED or name in SHARED_WITH_SERVING
                assert fits or not module.startswith("whis_box."), f"{path} imports {module}"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("box", BoxConfig),
        ("rag", RagConfig),
        ("model.whis", ModelConfig),
        ("eval", EvalConfig),
        ("tui", TuiConfig),
    ],
)
def test_every_key_stands_in_its_file_with_a_comment_above(name: str, kind: type[Section]) -> None:
    path = ROOT / "configs" / f"{name}.yaml"
    loaded = load_config(path, kind)
    assert loaded.model_dump(mode="json") == yaml.safe_load(path.read_text())
    lines = path.read_text().splitlines()
    for above, line in zip(lines, lines[1:], strict=False):
        assert line.strip().startswith("#") or above.strip().startswith("#"), (
            f"{path}: no comment above {line!r}"
        )


def test_all_config_mistakes_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "rag.yaml"
    path.write_text("retriever: {top_k: 0, typo: 1}\nevidence: {max_sentences: many}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, RagConfig)
    message = str(caught.value)
    assert all(
        part in message
        for part in ("rag.yaml: retriever.top_k is 0", "retriever.typo", "evidence.max_sentences")
    )


@pytest.mark.parametrize("text", ["[1]", "a: b: c", "\t"])
def test_a_config_that_is_no_mapping_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(tmp_path / "c.yaml", BoxConfig)
    with pytest.raises(NotReadyError, match=r"none\.yaml"):
        load_config(tmp_path / "none.yaml", BoxConfig)


def test_a_running_box_needs_no_training_or_evaluation_library() -> None:
    program = (
        "import sys, whis_box.cli, whis_box.box.opening, whis_box.doctor; "
        "bad = {'torch', 'transformers', 'peft', 'ragas', 'mlflow', 'presidio_analyzer', 'onnx'}; "
        "sys.exit(f'imported: {sorted(bad & set(sys.modules))}' if bad & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_program_itself_switches_the_model_hub_off() -> None:
    program = "import os, whis_box; print(os.environ['HF_HUB_OFFLINE'])"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=bare)
    assert done.stdout.strip() == "1"


def test_the_embedders_runtime_reports_nothing_to_its_maker(tmp_path: Path) -> None:
    """It would leave an identifier of this machine in the home folder, and send it."""
    program = "import whis_box, onnxruntime; onnxruntime.InferenceSession"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        bare[variable] = str(tmp_path)
    bare.pop("CI", None)  # under CI it is silent anyway
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*")) == [], "an identifier was written"


def test_only_the_two_agreed_places_catch_everything() -> None:
    allowed = {"whis_box/server/app.py", "tui/app.py"}
    for folder in ("whis_box", "convert", "train", "tui"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ExceptHandler):
                    name = getattr(node.type, "id", None)
                    broad = node.type is None or name in ("Exception", "BaseException")
                    assert not broad or str(path.relative_to(ROOT)) in allowed, f"{path}:{node.lineno}"


def test_tracked_files_stay_small() -> None:
    done = subprocess.run(["git", "ls-files", "-z"], capture_output=True, cwd=ROOT, check=True)
    paths = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    assert sum(path.stat().st_size for path in paths if path.is_file()) < 80_000_000
