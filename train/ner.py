"""Train the people-finder on filled templates, and write it where `convert.ner` picks it up.

    python -m train.ner [--examples N] [--epochs N]        writes build/ner/

The first layers of MiniLM with a smaller vocabulary and shapes of words in place of token types; a linear
layer gives BIO labels. Source: Devlin et al. 2018 §5.3 for tagging word pieces. No document of a customer and
no public benchmark is trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertConfig, BertForTokenClassification

from train.ner_data import LABELS, Example, examples, prose_of, read_templates
from train.ner_values import Values
from whis_box.errors import NotReadyError, WhisError
from whis_box.ingest.sanitize.pieces import MAX_PIECES, N_SHAPES, SPECIAL_SHAPE, Pieces, encode_batch
from whis_box.paths import repository_root, written_beside

ROOT = repository_root()
BASE = ROOT / "build" / "models" / "all-minilm-l6-v2"
OUTPUT = ROOT / "build" / "ner"
TEMPLATES = ROOT / "data" / "ner" / "templates"
VALUES = ROOT / "data" / "ner" / "values"
LAYERS = (0, 1, 3, 5)  # of the six; with all of them the model would be over 15 MB
VOCABULARY = 17_500
IGNORED = -100


@dataclass(frozen=True)
class Settings:
    """What one run is decided by."""

    examples: int = 64_000
    epochs: int = 1
    batch_pieces: int = 4096
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    warmup_share: float = 0.06
    seed: int = 7


def main() -> int:
    """Train with the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("examples", Settings.examples), ("epochs", Settings.epochs)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    try:
        train(Settings(examples=options.examples, epochs=options.epochs))
    except WhisError as error:
        print(f"train.ner: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def train(settings: Settings) -> None:
    """The whole run: data, smaller vocabulary, training, validation, files.

    Raises: NotReadyError without the base; InputError for a wrong template; StorageError.
    """
    if not (BASE / "model.safetensors").is_file():
        raise NotReadyError(f"{BASE}: missing; run `make models`")
    torch.manual_seed(settings.seed)
    values = Values(VALUES, settings.seed, valid=False)
    train_templates, valid_templates = read_templates(TEMPLATES, values.slots)
    train_prose, _ = _split(prose_of(ROOT / "data" / "raw"))
    print(
        f"{len(train_templates)} templates to train on, {len(valid_templates)} held out; "
        f"{len(train_prose)} paragraphs without people",
        flush=True,
    )
    training = list(examples(train_templates, train_prose, values, settings.seed, settings.examples))
    validation = held_out_examples(settings.seed)
    tokenizer, kept = smaller_vocabulary(Tokenizer.from_file(str(BASE / "tokenizer.json")), training)
    model = smaller_model(kept)
    n_parameters = sum(one.numel() for one in model.parameters())
    print(f"{len(kept)} word pieces, {n_parameters / 1e6:.1f} M parameters", flush=True)
    fit(model, tokenizer, training, validation, settings)
    write(model, tokenizer, settings)


def held_out_examples(seed: int = Settings.seed, n_examples: int = 3000) -> list[Example]:
    """Texts from templates, values and paragraphs that training never sees."""
    values = Values(VALUES, seed + 1, valid=True)
    _, templates = read_templates(TEMPLATES, values.slots)
    _, prose = _split(prose_of(ROOT / "data" / "raw"))
    return list(examples(templates, prose, values, seed + 1, n_examples))


def smaller_vocabulary(tokenizer: Tokenizer, texts: Sequence[Example]) -> tuple[Tokenizer, list[int]]:
    """A tokenizer with the pieces that the texts use most and every single character; the old ids kept."""
    state = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    bare = Tokenizer.from_str(json.dumps(state | {"truncation": None, "padding": None}))
    counts: Counter[int] = Counter()
    for at in range(0, len(texts), 1000):
        encodings = bare.encode_batch([one.text for one in texts[at : at + 1000]], add_special_tokens=False)
        for encoding in encodings:
            counts.update(encoding.ids)
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    needed = {
        number
        for piece, number in vocabulary.items()
        if piece in special or len(piece.removeprefix("##")) == 1
    }
    # Frequent pieces first; ids of a BERT vocabulary are themselves roughly in order of frequency.
    ranked = sorted(vocabulary.values(), key=lambda number: (-counts[number], number))
    kept = sorted(needed | set(ranked[: VOCABULARY - len(needed)]))
    new_id = {old: new for new, old in enumerate(kept)}
    state["model"]["vocab"] = {piece: new_id[old] for piece, old in vocabulary.items() if old in new_id}
    for token in state["added_tokens"]:
        token["id"] = new_id[token["id"]]
    for entry in (state.get("post_processor") or {}).get("special_tokens", {}).values():
        entry["ids"] = [new_id[one] for one in entry["ids"]]
    state["truncation"] = state["padding"] = None
    return Tokenizer.from_str(json.dumps(state)), kept


def smaller_model(kept: Sequence[int]) -> BertForTokenClassification:
    """Some layers and rows of the base, with a new head; shapes begin as copies of token type 0."""
    raw = json.loads((BASE / "config.json").read_text())
    config = BertConfig(
        **{name: raw[name] for name in ("hidden_size", "num_attention_heads", "intermediate_size")},
        layer_norm_eps=raw["layer_norm_eps"],
        num_hidden_layers=len(LAYERS),
        vocab_size=len(kept),
        type_vocab_size=N_SHAPES,
        max_position_embeddings=MAX_PIECES + 2,
    )
    config.num_labels = len(LABELS)
    model = BertForTokenClassification(config)
    base = {
        name.removeprefix("bert."): value for name, value in load_file(BASE / "model.safetensors").items()
    }
    embeddings = "embeddings.{}.weight"
    state = {name: value for name, value in base.items() if name.startswith("embeddings.LayerNorm")}
    state[embeddings.format("word_embeddings")] = base[embeddings.format("word_embeddings")][list(kept)]
    state[embeddings.format("position_embeddings")] = base[embeddings.format("position_embeddings")][
        : MAX_PIECES + 2
    ]
    types = base[embeddings.format("token_type_embeddings")][:1].repeat(N_SHAPES, 1)
    state[embeddings.format("token_type_embeddings")] = types + 0.01 * torch.randn_like(types)
    for new, old in enumerate(LAYERS):
        state |= {
            name.replace(f"encoder.layer.{old}.", f"encoder.layer.{new}."): value
            for name, value in base.items()
            if name.startswith(f"encoder.layer.{old}.")
        }
    missing, unexpected = model.bert.load_state_dict(state, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return model


def fit(
    model: BertForTokenClassification,
    tokenizer: Tokenizer,
    training: Sequence[Example],
    validation: Sequence[Example],
    settings: Settings,
) -> None:
    """Minimize cross-entropy; prints loss and speed, and the validation loss after each epoch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.train().to(device)
    rows = list(_rows(tokenizer, training))
    held_out = list(_rows(tokenizer, validation))
    n_steps = sum(1 for epoch in range(settings.epochs) for _ in _batches(rows, settings, epoch))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        settings.learning_rate,
        total_steps=n_steps + 1,
        pct_start=settings.warmup_share,
        anneal_strategy="linear",
    )
    started, n_pieces, step = time.perf_counter(), 0, 0
    for epoch in range(settings.epochs):
        for batch in _batches(rows, settings, epoch):
            inputs, labels = _tensors(batch, device)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                logits = model(**inputs).logits
            loss = torch.nn.functional.cross_entropy(
                logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED
            )
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            step += 1
            n_pieces += int(inputs["attention_mask"].sum())
            if step % 50 == 0:
                speed = n_pieces / (time.perf_counter() - started)
                print(f"step {step}/{n_steps} loss {loss.item():.4f} {speed:.0f} pieces/s", flush=True)
        print(
            f"epoch {epoch + 1}: validation loss {_loss(model, held_out, settings, device):.4f}", flush=True
        )


@dataclass(frozen=True)
class Row:
    """One encoded window with its labels."""

    ids: list[int]
    shapes: list[int]
    labels: list[int]


def _rows(tokenizer: Tokenizer, data: Sequence[Example]) -> Iterator[Row]:
    cls_id, sep_id = (tokenizer.get_vocab()[token] for token in ("[CLS]", "[SEP]"))
    for at in range(0, len(data), 1000):
        part = data[at : at + 1000]
        for example, pieces in zip(part, encode_batch(tokenizer, [one.text for one in part]), strict=True):
            cut = pieces.slice(0, MAX_PIECES)
            yield Row(
                [cls_id, *cut.ids, sep_id],
                [SPECIAL_SHAPE, *cut.shapes, SPECIAL_SHAPE],
                [IGNORED, *_labels(cut, example), IGNORED],
            )


def _labels(pieces: Pieces, example: Example) -> list[int]:
    """B on an entity's first piece, I on its others; a word that reaches out of one is inside it."""
    labels = []
    begun = -1
    for start, end in pieces.spans:
        inside = next(
            (number for number, one in enumerate(example.entities) if start < one[2] and one[1] < end), None
        )
        if inside is None:
            labels.append(0)
            continue
        prefix = "I" if begun == inside else "B"
        begun = inside
        labels.append(LABELS.index(f"{prefix}-{example.entities[inside][0]}"))
    return labels


def _batches(rows: Sequence[Row], settings: Settings, epoch: int) -> Iterator[list[Row]]:
    """Rows of like length, about `batch_pieces` with padding; the order follows from seed and epoch."""
    rng = random.Random(f"{settings.seed}/{epoch}")
    order = sorted(range(len(rows)), key=lambda at: (len(rows[at].ids) + rng.randint(0, 8), rng.random()))
    batches: list[list[Row]] = [[]]
    for at in order:
        row = rows[at]
        if batches[-1] and (len(batches[-1]) + 1) * (len(row.ids) + 8) > settings.batch_pieces:
            batches.append([])
        batches[-1].append(row)
    rng.shuffle(batches)
    yield from batches


def _tensors(batch: Sequence[Row], device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
    """(input_ids, attention_mask, token_type_ids), labels; each (rows, longest)."""
    longest = max(len(row.ids) for row in batch)

    def padded(values: list[list[int]], fill: int) -> Tensor:
        return torch.tensor([one + [fill] * (longest - len(one)) for one in values], device=device)

    inputs = {
        "input_ids": padded([row.ids for row in batch], 0),
        "attention_mask": padded([[1] * len(row.ids) for row in batch], 0),
        "token_type_ids": padded([row.shapes for row in batch], SPECIAL_SHAPE),
    }
    return inputs, padded([row.labels for row in batch], IGNORED)


@torch.no_grad()
def _loss(
    model: BertForTokenClassification, rows: Sequence[Row], settings: Settings, device: torch.device
) -> float:
    model.train(False)
    total = count = 0.0
    for batch in _batches(rows, settings, 0):
        inputs, labels = _tensors(batch, device)
        logits = model(**inputs).logits.float().flatten(0, 1)
        total += float(
            torch.nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")
        )
        count += int((labels != IGNORED).sum())
    model.train()
    return total / count


def write(model: BertForTokenClassification, tokenizer: Tokenizer, settings: Settings) -> None:
    """Weights, configuration, tokenizer and what they were made from, below build/ner."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with written_beside(OUTPUT / "model.safetensors") as beside:
        save_file(
            {name: value.float().cpu().contiguous() for name, value in model.state_dict().items()}, beside
        )
    with written_beside(OUTPUT / "tokenizer.json") as beside:
        beside.write_text(tokenizer.to_str())
    with written_beside(OUTPUT / "config.json") as beside:
        beside.write_text(json.dumps(model.config.to_dict(), indent=1))
    sources = sorted((ROOT / "data" / "ner").rglob("*.txt"))
    made = {
        "labels": list(LABELS),
        "settings": settings.__dict__,
        "templates_sha256": hashlib.sha256(b"".join(one.read_bytes() for one in sources)).hexdigest(),
        "torch": torch.__version__,
    }
    with written_beside(OUTPUT / "training.json") as beside:
        beside.write_text(json.dumps(made, indent=1))
    print(f"wrote {OUTPUT}")


def _split(prose: Sequence[str]) -> tuple[list[str], list[str]]:
    parts: tuple[list[str], list[str]] = ([], [])
    for paragraph in prose:
        parts[hashlib.sha256(paragraph.encode()).digest()[0] % 10 == 0].append(paragraph)
    return parts


if __name__ == "__main__":
    sys.exit(main())
