"""Export a sentence embedder to a folder that fastembed loads without a network.

    python -m convert.embedder                                the default of the lock -> build/embedder/
    python -m convert.embedder --source FOLDER --target FOLDER    a tuned one (train.embedder)

numpy and onnx are enough; int8 with `reduce_range`, because without it CPUs that lack VNNI saturate.
Invariant: an export is refused unless int8 stays close to fp32, and that of the public weights also unless
fp32 gives the reference cosine for the model card's example pair.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from convert.bert_onnx import BertGraph
from convert.fetch import fetch
from convert.int8 import quantize
from convert.lock import ModelEntry, read_lock
from convert.products import BUILD_DIR, make_product
from whis_box.errors import NotReadyError, VerificationError, WhisError
from whis_box.paths import file_sha256, written_beside

CODE_VERSION = "1"
MAX_TOKENS = 256  # what the public weights were tuned for, and it bounds the cost
OUTPUT = BUILD_DIR / "embedder"
SMALL_FILES = ("config.json", "special_tokens_map.json", "tokenizer.json")
# Source: the model card's usage example of sentence-transformers/all-MiniLM-L6-v2.
CARD_PAIR = ("This is an example sentence", "Each sentence is converted")
PARITY_TEXTS = tuple(
    f"{subject} {what}"
    for subject in (
        "Event 4625",
        "PowerShell",
        "The attacker",
        "A scheduled task",
        "The mail gateway",
        "LSASS memory",
    )
    for what in (
        "was seen on the domain controller at night.",
        "points to technique T1059.001 and needs review.",
        "is logged with the source address and the user name.",
        "was started by winword.exe from a temporary folder.",
        "can be benign when backup software runs.",
    )
)
MIN_INT8_COSINE = 0.98
CARD_COSINE = 0.4046  # from transformers' BertModel in fp32; tests/test_convert_embedder.py compares the two
CARD_TOLERANCE = 1e-3


def main() -> int:
    """Export what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, help="folder with model.safetensors and its small files")
    parser.add_argument("--target", type=Path, help="folder to write")
    options = parser.parse_args()
    if (options.source is None) != (options.target is None):
        parser.error("--source and --target belong together")
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer advises a step that changes nothing here
    try:
        if options.source is not None:
            export(options.source, options.target, MAX_TOKENS, card_cosine=None)
            print(f"{options.target / 'model.onnx'} {file_sha256(options.target / 'model.onnx')}")
            return 0
        lock = read_lock()
        made = make_embedder(lock.entry(lock.default_embedder))
        model = OUTPUT / "model.onnx"
        print(f"{model} {file_sha256(model)}{'' if made else ' (unchanged)'}")
    except WhisError as error:
        print(f"convert.embedder: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def make_embedder(entry: ModelEntry) -> bool:
    """build/embedder from one embedder of the lock; False if it is current. One that comes as ONNX is copied.

    Raises: VerificationError for the source or when parity fails; StorageError.
    """
    files = fetch(entry)
    folder = files[0].parent
    inputs = {wanted.name: wanted.sha256 for wanted in entry.files} | {
        "code": CODE_VERSION,
        "n_ctx": str(entry.n_ctx),
    }
    outputs = [OUTPUT / name for name in ("model.onnx", "tokenizer_config.json", *SMALL_FILES)]
    if any(path.name == "model.onnx" for path in files):
        return make_product("embedder", inputs, outputs, lambda: take(files, OUTPUT))
    return make_product("embedder", inputs, outputs, lambda: export(folder, OUTPUT, entry.n_ctx, CARD_COSINE))


def take(files: list[Path], target: Path) -> None:
    """Copy an export that was verified when it was fetched.

    Raises: StorageError.
    """
    for path in files:
        with written_beside(target / path.name) as beside:
            beside.write_bytes(path.read_bytes())


def export(source: Path, target: Path, max_tokens: int, card_cosine: float | None) -> None:
    """Write the fastembed folder; `card_cosine` is what the example pair must have, None for tuned weights.

    Raises: NotReadyError if the source is not whole; VerificationError when parity fails; StorageError.
    """
    for name in ("model.safetensors", "tokenizer_config.json", *SMALL_FILES):
        if not (source / name).is_file():
            raise NotReadyError(f"{source / name}: missing; run `python -m train.embedder` or fetch it")
    target.mkdir(parents=True, exist_ok=True)
    print("exporting the embedder to ONNX, int8", file=sys.stderr, flush=True)
    config = json.loads((source / "config.json").read_text())
    model = BertGraph(load_file(source / "model.safetensors"), config).build()
    with tempfile.TemporaryDirectory() as scratch:
        fp32, int8 = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        onnx.save(model, fp32)
        quantize(fp32, int8)
        check_parity(fp32, int8, source / "tokenizer.json", card_cosine)
        with written_beside(target / "model.onnx") as beside:
            beside.write_bytes(int8.read_bytes())
    for name in SMALL_FILES:
        with written_beside(target / name) as beside:
            beside.write_bytes((source / name).read_bytes())
    settings = json.loads((source / "tokenizer_config.json").read_text())
    with written_beside(target / "tokenizer_config.json") as beside:
        # fastembed cuts at this length; 256 is what the model was tuned for, and it bounds the cost.
        beside.write_text(json.dumps(settings | {"model_max_length": max_tokens}, indent=2))


def check_parity(fp32: Path, int8: Path, tokenizer: Path, wanted_cosine: float | None) -> None:
    """Compare the two models and print what was found.

    Raises: VerificationError.
    """
    exact, rounded = embed(fp32, tokenizer, PARITY_TEXTS), embed(int8, tokenizer, PARITY_TEXTS)
    cosines = (exact * rounded).sum(axis=1)
    first, second = embed(fp32, tokenizer, CARD_PAIR)
    card_cosine = float(first @ second)
    print(
        f"embedder: int8 against fp32, cosine mean {cosines.mean():.4f}, least {cosines.min():.4f} "
        f"over {len(PARITY_TEXTS)} sentences; example pair {card_cosine:.4f}",
        file=sys.stderr,
    )
    if wanted_cosine is not None and abs(card_cosine - wanted_cosine) > CARD_TOLERANCE:
        raise VerificationError(
            f"the fp32 embedder gives {card_cosine:.4f} for the example pair, not {wanted_cosine}"
        )
    if cosines.mean() < MIN_INT8_COSINE:
        raise VerificationError(
            f"the int8 embedder differs from fp32: cosine {cosines.mean():.4f} < {MIN_INT8_COSINE}"
        )


def embed(model: Path, tokenizer: Path, texts: tuple[str, ...]) -> NDArray[np.float32]:
    """Mean-pooled unit vectors (n, dim), without fastembed: the reference for its results."""
    encoder = Tokenizer.from_file(str(tokenizer))
    encoder.enable_padding()
    encoder.enable_truncation(256)
    encoded = encoder.encode_batch(list(texts))
    mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
    feeds = {
        "input_ids": np.array([one.ids for one in encoded], dtype=np.int64),
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(mask),
    }
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    [hidden] = session.run(None, feeds)  # (B, T, H)
    kept = mask[:, :, None]
    pooled = (hidden * kept).sum(axis=1) / kept.sum(axis=1)
    return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), dtype=np.float32)


if __name__ == "__main__":
    sys.exit(main())
