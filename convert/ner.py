"""Export the people-finder that `train.ner` made to int8 ONNX, and put it where the program reads it.

    python -m convert.ner                 reads build/ner/, writes data/ner/

Invariant: the export is refused if it is larger than MAX_BYTES or if int8 labels other pieces than fp32 does
in more than MAX_CHANGED of the cases.
"""

from __future__ import annotations

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
from convert.int8 import quantize
from convert.products import BUILD_DIR
from whis_box.errors import NotReadyError, VerificationError, WhisError
from whis_box.ingest.sanitize.pieces import SPECIAL_SHAPE, encode, windows
from whis_box.paths import repository_root, written_beside

SOURCE = BUILD_DIR / "ner"
TARGET = repository_root() / "data" / "ner"
MAX_BYTES = 15_000_000
MAX_CHANGED = 0.01
# Least mean probability of a span, by type: the lowest within 0.01 of the best F1 on held-out templates
# (`python -m tests.bench.people`), because a missed address costs more than a marked word; higher for names,
# of which documents about attacks hold many that are no people's.
THRESHOLDS = {"PERSON": 0.85, "ORGANIZATION": 0.8, "STREET_ADDRESS": 0.85, "PHONE_NUMBER": 0.7, "TITLE": 0.85}
PARITY_TEXTS = (
    "Maria Keller from Basel called at 09:40; her laptop was sent to 14 Harbour Street, Bristol BS1 5TY.",
    "Sysmon event 10 on lsass.exe with GrantedAccess 0x1410 points to T1003.001; Mimikatz is one such tool.",
    "Mr. Okafor, 43, works for Nordwind Logistik and may be reached on +49 30 901820.",
)


def main() -> int:
    """Export and verify."""
    logging.getLogger().setLevel(logging.ERROR)  # the quantizer advises a step that changes nothing here
    try:
        export(SOURCE, TARGET)
    except WhisError as error:
        print(f"convert.ner: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def export(source: Path, target: Path) -> None:
    """Write model.onnx, tokenizer.json and ner.json into `target`.

    Raises: NotReadyError if `source` was not trained; VerificationError when a check fails; StorageError.
    """
    if not (source / "training.json").is_file():
        raise NotReadyError(f"{source}: no trained model here; run `python -m train.ner`")
    config = json.loads((source / "config.json").read_text())
    training = json.loads((source / "training.json").read_text())
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    model = BertGraph(load_file(source / "model.safetensors"), config | {"model_type": "bert"}).build()
    settings = {
        "labels": training["labels"],
        "thresholds": THRESHOLDS,
        "cls_id": tokenizer.token_to_id("[CLS]"),
        "sep_id": tokenizer.token_to_id("[SEP]"),
    }
    with tempfile.TemporaryDirectory() as scratch:
        fp32, int8 = Path(scratch) / "fp32.onnx", Path(scratch) / "int8.onnx"
        onnx.save(model, fp32)
        quantize(fp32, int8)
        _check(fp32, int8, tokenizer, settings["cls_id"], settings["sep_id"])
        for name, data in (
            ("model.onnx", int8.read_bytes()),
            ("tokenizer.json", (source / "tokenizer.json").read_bytes()),
            ("ner.json", json.dumps(settings, indent=1).encode()),
        ):
            with written_beside(target / name) as beside:
                beside.write_bytes(data)


def _check(fp32: Path, int8: Path, tokenizer: Tokenizer, cls_id: int, sep_id: int) -> None:
    exact, rounded = (labels_of(path, tokenizer, cls_id, sep_id) for path in (fp32, int8))
    changed, size = float((exact != rounded).mean()), int8.stat().st_size
    print(
        f"people-finder: {size / 1e6:.1f} MB; int8 changes {changed:.1%} of {len(exact)} labels",
        file=sys.stderr,
    )
    if size > MAX_BYTES:
        raise VerificationError(f"the people-finder has {size} bytes; {MAX_BYTES} are allowed")
    if changed > MAX_CHANGED:
        raise VerificationError(f"int8 changes {changed:.1%} of the labels; {MAX_CHANGED:.0%} is allowed")


def labels_of(model: Path, tokenizer: Tokenizer, cls_id: int, sep_id: int) -> NDArray[np.int64]:
    """The best label of every piece of the parity texts."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    found = []
    for text in PARITY_TEXTS:
        for window in windows(encode(tokenizer, text), text):
            ids = np.array([[cls_id, *window.ids, sep_id]], dtype=np.int64)
            shapes = np.array([[SPECIAL_SHAPE, *window.shapes, SPECIAL_SHAPE]], dtype=np.int64)
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": shapes}
            [logits] = session.run(None, feeds)
            found.append(logits[0, 1:-1].argmax(axis=1))
    return np.concatenate(found)


if __name__ == "__main__":
    sys.exit(main())
