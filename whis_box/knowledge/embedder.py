"""Texts to unit vectors with fastembed, from a local folder only.

Invariant: vectors are float32 of length 1, and the same text gives the same vector in one box.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors
from tokenizers import Tokenizer

from whis_box.errors import NotReadyError, VerificationError

MODEL_FILE = "model.onnx"
JSON_FILES = ("tokenizer.json", "tokenizer_config.json", "config.json")
# One text at a time: dynamic int8 takes its ranges from the whole batch, so in a larger one a text would
# depend on its neighbours (cosine down to 0.989).
BATCH_SIZE = 1
_NAME = "whis-box/embedder"
_LOAD_ERRORS = (
    onnx_errors.Fail,
    onnx_errors.InvalidArgument,
    onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf,
    onnx_errors.NoSuchFile,
    onnx_errors.RuntimeException,
    ValueError,
    KeyError,
)


class Embedder:
    """A sentence embedder of `dim` dimensions."""

    def __init__(self, folder: Path, dim: int, n_threads: int) -> None:
        """Load the ONNX model in `folder`.

        Raises: NotReadyError if a file is missing; VerificationError if it does not load or has another size.
        """
        _check_files(folder)
        self.dim = dim
        self._model = _load(folder, dim, n_threads)
        self._counter = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._counter.no_truncation()
        self._counter.no_padding()
        if self.embed(["probe"]).shape != (1, dim):
            raise VerificationError(
                f"{folder}: the embedder does not give {dim} dimensions, as configs/rag.yaml says"
            )

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (n, dim) float32, in the order of `texts`."""
        listed = list(texts)
        vectors = np.empty((len(listed), self.dim), dtype=np.float32)
        if not listed:
            return vectors
        for row, vector in enumerate(self._model.embed(listed, batch_size=BATCH_SIZE)):
            vectors[row] = vector
        return vectors

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` as the embedder counts them, without special ones and without truncation."""
        return len(self._counter.encode(text, add_special_tokens=False).ids)


def _check_files(folder: Path) -> None:
    for name in (MODEL_FILE, *JSON_FILES):
        if not (folder / name).is_file():
            raise NotReadyError(f"{folder / name}: missing; run `make demo` or copy the box again")
    for name in JSON_FILES:
        try:
            json.loads((folder / name).read_bytes())
        except ValueError as cause:
            raise VerificationError(
                f"{folder / name}: not valid JSON ({cause}); copy the box again"
            ) from None


def _load(folder: Path, dim: int, n_threads: int) -> TextEmbedding:
    if not any(model["model"] == _NAME for model in TextEmbedding.list_supported_models()):
        TextEmbedding.add_custom_model(
            model=_NAME,
            pooling=PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(hf="whis-box/none"),  # mandatory but never asked: the folder is given
            dim=dim,
            model_file=MODEL_FILE,
        )
    try:
        return TextEmbedding(
            _NAME,
            cache_dir=str(folder),  # else an empty cache folder is made in the temporary directory
            specific_model_path=str(folder),
            threads=n_threads,
            providers=["CPUExecutionProvider"],
        )
    except _LOAD_ERRORS as cause:
        raise VerificationError(
            f"{folder}: the embedder does not load ({cause}); copy the box again"
        ) from cause
