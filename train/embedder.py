"""Tune the sentence embedder to the field: reports near their technique, questions near their answer.

    python -m train.embedder --attack enterprise-attack.json.gz              writes build/embedder-tuned/
    python -m train.embedder --attack … --sigma sigma-rules.zip --start build/embedder-tuned

Pairs: ATT&CK procedures with their technique, or with another procedure of it (groups and software that the
benchmark holds out are left out by the same rule), training questions with the sentences that answer them,
names of techniques with our own sentences about them. The second run goes on from the first with Sigma rules
(the half that the benchmark does not report on) and a share of the other pairs, which keeps them known.
Loss: cross-entropy over the batch, both ways. Source: in-batch negatives, Henderson et al. 2017; symmetric
form and temperature as in CLIP, Radford et al. 2021.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import random
import re
import sys
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from transformers import BertModel

from whis_box.errors import NotReadyError, WhisError
from whis_box.paths import file_sha256, read_text, repository_root, written_beside

ROOT = repository_root()
BASE = ROOT / "build" / "models" / "all-minilm-l6-v2"
OUTPUT = ROOT / "build" / "embedder-tuned"
HELD_OUT_PERCENT = 30
DEV_PERCENT = 50
MAX_TOKENS = 80
_MARKUP = re.compile(r"\(Citation: [^)]*\)|\[([^\]]+)\]\([^)]*\)|<[^>]+>")
_CATALOGUE = re.compile(r"^## (T\d{4}(?:\.\d{3})?) (.+)\n\n(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Settings:
    """What one run is decided by."""

    epochs: int = 2
    batch: int = 128
    learning_rate: float = 3e-5
    temperature: float = 0.05
    warmup_share: float = 0.1
    sibling_share: float = 0.5
    """How often a procedure's partner is another procedure of its technique and not the description."""
    others_share: float = 1.0
    """How many of the pairs without Sigma are kept beside Sigma's."""
    seed: int = 11


@dataclass(frozen=True)
class Pair:
    """Two texts that should lie near each other; `key` says which pairs have the same answer."""

    query: str
    passage: str
    key: str


def main() -> int:
    """Train with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attack", type=Path, required=True)
    parser.add_argument("--sigma", type=Path)
    parser.add_argument("--start", type=Path, default=BASE, help="folder of the weights to begin with")
    options = parser.parse_args()
    settings = (
        Settings() if options.sigma is None else Settings(epochs=1, learning_rate=2e-5, others_share=0.35)
    )
    try:
        train(settings, options.start, options.attack, options.sigma)
    except WhisError as error:
        print(f"train.embedder: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def train(settings: Settings, start: Path, bundle: Path, rules: Path | None) -> None:
    """The whole run: pairs, training, files.

    Raises: NotReadyError without the weights or the bundle; StorageError.
    """
    for path in (start / "model.safetensors", bundle, *([rules] if rules else [])):
        if not path.is_file():
            raise NotReadyError(f"{path}: missing; run `make models`, or name the right file")
    torch.manual_seed(settings.seed)
    objects = read_bundle(bundle)
    pairs = [*procedures(objects), *questions(), *catalogue()]
    if rules is not None:
        kept = int(len(pairs) * settings.others_share)
        told = [*sigma(rules, objects)]
        pairs = [*random.Random(settings.seed).sample(pairs, kept), *told, *told]
    print(f"{len(pairs)} pairs", flush=True)
    tokenizer = Tokenizer.from_file(str(start / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    model = BertModel.from_pretrained(
        str(start),
        add_pooling_layer=False,
        attn_implementation="sdpa",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    fit(model, tokenizer, pairs, settings)
    write(model, start, pairs, settings)


def read_bundle(bundle: Path) -> list[dict[str, Any]]:
    """The objects of an ATT&CK bundle that are neither revoked nor deprecated."""
    opener = gzip.open if bundle.suffix == ".gz" else open
    with opener(bundle, "rt", encoding="utf-8") as stream:
        objects = json.load(stream)["objects"]
    return [one for one in objects if not (one.get("revoked") or one.get("x_mitre_deprecated"))]


def procedures(objects: list[dict[str, Any]]) -> Iterator[Pair]:
    """What groups and software did, with the technique it is an example of."""
    techniques = {one["id"]: one for one in objects if one["type"] == "attack-pattern"}
    for one in objects:
        source = str(one.get("source_ref", ""))
        if one["type"] != "relationship" or one["target_ref"] not in techniques or not one.get("description"):
            continue
        if source.startswith(("intrusion-set", "malware", "tool")) and bucket(source) >= HELD_OUT_PERCENT:
            technique = techniques[one["target_ref"]]
            yield Pair(_plain(one["description"]), _about(technique), technique["id"])


def sigma(rules: Path, objects: list[dict[str, Any]]) -> Iterator[Pair]:
    """Title and description of the rules that are not reported on, with each technique of their tags."""
    techniques = {
        reference["external_id"].lower(): one
        for one in objects
        if one["type"] == "attack-pattern"
        for reference in one["external_references"]
        if reference["source_name"] == "mitre-attack"
    }
    with zipfile.ZipFile(rules) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith(".yml"):
                continue
            for rule in yaml.safe_load_all(archive.read(name)):
                text = f"{rule.get('title', '')}. {_plain(str(rule.get('description', '')))}"
                for tag in rule.get("tags") or () if bucket(text) < DEV_PERCENT else ():
                    technique = techniques.get(str(tag).removeprefix("attack."))
                    if technique is not None:
                        yield Pair(text, _about(technique), technique["id"])


def bucket(key: str) -> int:
    """0 to 99, the same as in the benchmark (tests/bench/retrieval_sets.py)."""
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100


def _about(technique: dict[str, Any]) -> str:
    return f"{technique['name']}\n{_plain(technique['description'])}"


def questions() -> Iterator[Pair]:
    """Training questions with the sentences that answer them."""
    for line in read_text(ROOT / "data" / "training" / "questions.ndjson").splitlines():
        fields = json.loads(line)
        for sentence in fields["sentences"]:
            yield Pair(fields["question"], sentence, sentence)


def catalogue() -> Iterator[Pair]:
    """Names of techniques with our own sentences about them."""
    for path in sorted((ROOT / "data" / "raw" / "catalogue").glob("*.md")):
        for match in _CATALOGUE.finditer(read_text(path)):
            yield Pair(match[2], match[3].replace(f"{match[1]} ", ""), match[1])


def fit(model: BertModel, tokenizer: Tokenizer, pairs: Sequence[Pair], settings: Settings) -> None:
    """Minimize the symmetric loss; prints loss and speed. Steps are taken on copies in fp32."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    masters = [value.detach().clone().to(device).requires_grad_() for value in model.parameters()]
    model.train().to(device, torch.bfloat16)  # whole in bf16: on a CPU, casts cost more than products
    working = list(model.parameters())
    n_steps = sum(1 for epoch in range(settings.epochs) for _ in batches(pairs, settings, epoch))
    optimizer = torch.optim.AdamW(masters, lr=settings.learning_rate, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=n_steps + 1, pct_start=settings.warmup_share
    )
    started, step = time.perf_counter(), 0
    for epoch in range(settings.epochs):
        for batch in batches(pairs, settings, epoch):
            asked = embed(model, tokenizer, [one.query for one in batch], device)  # (B, H)
            told = embed(model, tokenizer, [one.passage for one in batch], device)  # (B, H)
            scores = asked.float() @ told.float().T / settings.temperature  # (B, B)
            target = torch.arange(len(batch), device=device)
            loss = (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2
            loss.backward()  # type: ignore[no-untyped-call]
            for master, value in zip(masters, working, strict=True):
                master.grad, value.grad = None if value.grad is None else value.grad.float(), None
            torch.nn.utils.clip_grad_norm_(masters, 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                for master, value in zip(masters, working, strict=True):
                    value.copy_(master)
            step += 1
            if step % 10 == 0:
                seconds = (time.perf_counter() - started) / step
                print(f"step {step}/{n_steps} loss {loss.item():.3f} {seconds:.2f} s/step", flush=True)
    with torch.no_grad():
        for master, value in zip(masters, working, strict=True):
            value.data = master.data


def batches(pairs: Sequence[Pair], settings: Settings, epoch: int) -> Iterator[list[Pair]]:
    """Batches in which no two pairs have the same answer: the others are the negatives."""
    rng = random.Random(f"{settings.seed}/{epoch}")
    siblings: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        siblings[pair.key].append(pair.query)
    order = []
    for pair in pairs:
        others = siblings[pair.key]
        sibling = rng.choice(others) if len(others) > 1 and rng.random() < settings.sibling_share else ""
        takes = sibling not in ("", pair.query)
        order.append(replace(pair, passage=sibling) if takes else pair)
    rng.shuffle(order)
    while len(order) >= settings.batch:
        batch: dict[str, Pair] = {}
        left: list[Pair] = []
        for pair in order:
            if len(batch) < settings.batch and pair.key not in batch:
                batch[pair.key] = pair
            else:
                left.append(pair)
        if len(batch) < settings.batch:
            return
        yield list(batch.values())
        order = left


def embed(model: BertModel, tokenizer: Tokenizer, texts: Sequence[str], device: torch.device) -> Tensor:
    """Unit vectors by mean pooling, as serving makes them; (B, H)."""
    encodings = tokenizer.encode_batch(list(texts))
    ids = torch.tensor([one.ids for one in encodings], device=device)  # (B, T)
    mask = torch.tensor([one.attention_mask for one in encodings], device=device)  # (B, T)
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()  # (B, T, H)
    weights = mask.unsqueeze(-1).to(hidden.dtype)  # (B, T, 1)
    return normalize((hidden * weights).sum(1) / weights.sum(1), dim=-1)


def write(model: BertModel, start: Path, pairs: Sequence[Pair], settings: Settings) -> None:
    """Weights with the base's small files, and what they were made from."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with written_beside(OUTPUT / "model.safetensors") as beside:
        save_file(
            {name: value.float().cpu().contiguous() for name, value in model.state_dict().items()}, beside
        )
    digest = hashlib.sha256("\n".join(f"{one.query}\t{one.passage}" for one in pairs).encode()).hexdigest()
    before = start / "training.json"
    made = {
        "start_sha256": file_sha256(start / "model.safetensors"),
        "settings": settings.__dict__,
        "n_pairs": len(pairs),
        "pairs_sha256": digest,
        "earlier": json.loads(read_text(before)) if before.is_file() else None,
    }
    with written_beside(OUTPUT / "training.json") as beside:
        beside.write_text(json.dumps(made, indent=1))
    for name in ("config.json", "tokenizer.json", "special_tokens_map.json", "tokenizer_config.json"):
        if (BASE / name).is_file():
            (OUTPUT / name).write_bytes((BASE / name).read_bytes())
    print(f"wrote {OUTPUT}")


def _plain(text: str) -> str:
    return " ".join(_MARKUP.sub(lambda match: match[1] or "", text).split())


if __name__ == "__main__":
    sys.exit(main())
