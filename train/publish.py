"""A finished run as a shipped adapter: GGUF, lineage, curve, evaluation and card in one folder.

    python -m train.publish RUN --base build/models/base.gguf --evaluation FILE --leakage FILE [--note TEXT]

writes train/adapters/<name>/<version>/, with the list of what the adapter must not say. Invariant: the card
says only what the files beside it say; a report made for another adapter is refused.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from convert import lora as convert_lora
from train.config import TrainConfig
from train.leaks import leaks_of
from whis_box.config import load_config
from whis_box.errors import InputError, VerificationError, WhisError
from whis_box.guards.output import LEAK_FILE
from whis_box.paths import file_sha256, read_text, repository_root, written_beside

ADAPTERS = repository_root() / "train" / "adapters"
MAX_BYTES = 12 * 1024 * 1024
COPIED = ("lineage.json", "curve.ndjson", "config.yaml")


def main() -> int:
    """Publish one run."""
    parser = argparse.ArgumentParser(prog="train.publish", description="ship an adapter")
    parser.add_argument("run", type=Path)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--evaluation", type=Path, required=True, help="of tests.bench.adapter_quality --out")
    parser.add_argument("--leakage", type=Path, required=True, help="of train.leakage --out")
    parser.add_argument("--note", default="", help="what differs from the version before")
    options = parser.parse_args()
    try:
        folder = publish(options.run, options.base, options.evaluation, options.leakage, options.note)
    except WhisError as error:
        print(f"train.publish: {error}", file=sys.stderr)
        return error.exit_code
    print(folder)
    return 0


def publish(run: Path, base: Path, evaluation: Path, leakage: Path, note: str) -> Path:
    """Write the adapter's folder and give it.

    Raises: VerificationError for a report of another adapter or run; InputError for a file that is too
    large; as convert.lora.
    """
    config = load_config(run / "config.yaml", TrainConfig)
    folder = ADAPTERS / config.adapter.name / config.adapter.version
    target = folder / "adapter.gguf"
    size = convert_lora.convert(run, base, target)
    if size > MAX_BYTES:
        target.unlink()
        raise InputError(f"{target}: {size} bytes, the limit is {MAX_BYTES}; lower adapter.r")
    lineage, tested, leaks = (
        json.loads(read_text(one)) for one in (run / "lineage.json", evaluation, leakage)
    )
    if tested["adapter_sha256"] != file_sha256(target):
        raise VerificationError(f"{evaluation}: made for another adapter; evaluate {target} and run again")
    if leaks["run"] != lineage["run"]:
        raise VerificationError(f"{leakage}: made for another run; measure {run} and run again")
    curve = [json.loads(line) for line in read_text(run / "curve.ndjson").splitlines()]
    texts = {name: read_text(run / name) for name in COPIED}
    texts |= {"evaluation.json": read_text(evaluation), "leakage.json": read_text(leakage)}
    texts["curve.svg"] = curve_svg(curve)
    texts[LEAK_FILE] = leaks_of(run)
    texts["README.md"] = card(config, lineage, curve, tested, leaks, file_sha256(target), size, note)
    for name, text in texts.items():
        with written_beside(folder / name) as beside:
            beside.write_text(text)
    return folder


def curve_svg(curve: list[dict[str, float]]) -> str:
    """Training loss, smoothed over five steps, and validation loss."""
    width, height, pad = 640, 280, 40
    losses = [
        sum(one["loss"] for one in curve[max(0, at - 4) : at + 1]) / len(curve[max(0, at - 4) : at + 1])
        for at in range(len(curve))
    ]
    top, last = max(losses), curve[-1]["step"]
    looks = [(one["step"], one["val_loss"]) for one in curve if "val_loss" in one]

    def place(step: float, loss: float) -> str:
        x = pad + (width - 2 * pad) * step / last
        return f"{x:.1f},{height - pad - (height - 2 * pad) * min(loss, top) / top:.1f}"

    trained = " ".join(place(one["step"], loss) for one, loss in zip(curve, losses, strict=True))
    held_out = " ".join(place(*look) for look in looks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="{width}" height="{height}" fill="white"/>\n'
        f'<polyline fill="none" stroke="#4878a8" points="{trained}"/>\n'
        f'<polyline fill="none" stroke="#c0504d" stroke-width="2" points="{held_out}"/>\n'
        f'<text x="{pad}" y="20">loss per sample: training, with options (blue), validation (red)</text>\n'
        f'<text x="4" y="{pad + 4}">{top:.2f}</text><text x="4" y="{height - pad + 4}">0</text>\n'
        f'<text x="{width - pad - 60}" y="{height - 12}">step {last:.0f}</text>\n</svg>\n'
    )


def card(
    config: TrainConfig,
    lineage: dict[str, Any],
    curve: list[dict[str, float]],
    tested: dict[str, Any],
    leaks: dict[str, Any],
    sha256: str,
    size: int,
    note: str,
) -> str:
    """The adapter's README, from its files."""
    adapter, optimizer = config.adapter, config.optimizer
    environment = lineage["environment"]
    lines = [
        f"# Adapter {adapter.name} {adapter.version}",
        "",
        *([note, ""] if note else []),
        f"LoRA, r {adapter.r}, alpha {adapter.lora_alpha:g}, on {', '.join(adapter.target_modules)}; "
        f"{size} bytes, sha256 `{sha256}`.",
        f"Base `{lineage['base_sha256']}`, dequantized for training. Dataset {lineage['dataset']} "
        f"(`{lineage['dataset_sha256']}`): {lineage['n_samples']} samples, {lineage['n_tokens']} tokens, "
        f"{lineage['steps']} steps of {optimizer.rows_per_step} rows, learning rate "
        f"{optimizer.learning_rate:g}, seed {optimizer.seed}; the weights are those of step "
        f"{lineage['best_step']}.",
        f"Made at commit `{lineage['commit']}` on {environment['processor']}, torch {environment['torch']}, "
        f"{curve[-1]['tokens_per_s']:.0f} tokens/s beside other work. `config.yaml` repeats it.",
        "",
        "![training curve](curve.svg)",
        "",
        "## Against its base",
        "",
        f"{tested['cases']} golden prompts, both through their GGUF and the box's engine with the same "
        f"grammar, {tested['machine']}, {tested['date']}, commit `{tested['commit'][:12]}`. "
        "Interval: paired bootstrap, 95 %.",
        "",
        "| | n | base | adapter | difference | interval |",
        "|---|---:|---:|---:|---:|---|",
        *(
            f"| {name} | {row['n']} | {row['base']:.3f} | {row['adapter']:.3f} | {row['difference']:+.3f} "
            f"| {row['low']:+.3f} to {row['high']:+.3f} |"
            for name, row in tested["metrics"].items()
        ),
        "",
        "## What it gives away",
        "",
        f"Gate {'passed' if leaks['passed'] else 'FAILED'}. Exposure in bits among "
        f"{leaks['n_alternatives'] + 1} candidates; chance is 1.44, the gate "
        f"{leaks['gates']['mean_exposure_bits']}.",
        "",
        "| insertions | canaries | mean exposure | highest | extracted |",
        "|---:|---:|---:|---:|---:|",
        *(
            f"| {one['insertions']} | {one['n']} | {one['mean_exposure']:.2f} "
            f"| {one['highest_exposure']:.2f} | {one['extracted_greedy'] + one['extracted_draws']} |"
            for one in leaks["strata"]
        ),
        "",
        f"Membership: AUC {leaks['membership']['auc']:.3f} ({leaks['membership']['auc_low']:.3f} to "
        f"{leaks['membership']['auc_high']:.3f}), {leaks['membership']['n']} members and others; gate "
        f"{leaks['gates']['auc']}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
