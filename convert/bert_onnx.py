"""A BERT encoder as an ONNX graph, from plain weights.

Shapes: B sequences of T tokens, H hidden, A heads of D. Only what onnxruntime's optimizer keeps correct is
used: position embeddings through Slice, erf-GELU, opset 17's LayerNormalization.
Source: Devlin et al. 2018; layout of the weights as in Hugging Face transformers' BertModel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from whis_box.errors import VerificationError

OPSET = 17
IR_VERSION = 8
MASKED = -1e4  # added to a padded token's attention score

Weights = Mapping[str, NDArray[np.float32]]


class BertGraph:
    """Collects nodes and constants; `build` gives the checked model."""

    def __init__(self, weights: Weights, config: Mapping[str, Any]) -> None:
        """`config` is the model's config.json.

        Raises: VerificationError if it is not a BERT with erf-GELU.
        """
        if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
            raise VerificationError("config.json: only BERT with hidden_act gelu can be exported")
        self._weights = {name.removeprefix("bert."): value for name, value in weights.items()}
        self._hidden = int(config["hidden_size"])
        self._heads = int(config["num_attention_heads"])
        self._layers = int(config["num_hidden_layers"])
        self._epsilon = float(config["layer_norm_eps"])
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def build(self) -> Any:
        """ONNX model: input_ids, attention_mask, token_type_ids (B, T) -> last_hidden_state (B, T, H), or
        logits (B, T, labels) where the weights hold a token classifier."""
        hidden = self._embeddings()
        mask = self._mask()
        for number in range(self._layers):
            last = number == self._layers - 1
            hidden = self._layer(hidden, mask, number, "last_hidden_state" if last else f"layer{number}")
        width = self._hidden
        if "classifier.weight" in self._weights:
            hidden, width = (
                self._linear(hidden, "classifier", "logits"),
                len(self._weights["classifier.bias"]),
            )
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ]
        output = helper.make_tensor_value_info(hidden, TensorProto.FLOAT, ["batch", "sequence", width])
        graph = helper.make_graph(self._nodes, "bert", inputs, [output], list(self._constants.values()))
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        onnx.checker.check_model(model)
        return model

    def _embeddings(self) -> str:
        words = self._node(
            "Gather", [self._weight("embeddings.word_embeddings.weight"), "input_ids"], "words"
        )
        types = self._node(
            "Gather", [self._weight("embeddings.token_type_embeddings.weight"), "token_type_ids"], "types"
        )
        shape = self._node("Shape", ["input_ids"], "shape")
        one, two, zero = (self._constant(f"i{n}", np.array([n], np.int64)) for n in (1, 2, 0))
        length = self._node("Slice", [shape, one, two, zero], "length")  # (1,): T
        table = self._weight("embeddings.position_embeddings.weight")
        positions = self._node("Slice", [table, zero, length, zero], "positions")  # (T, H)
        summed = self._node(
            "Add", [self._node("Add", [words, types], "sum1"), positions], "sum2"
        )  # (B, T, H)
        return self._norm(summed, "embeddings.LayerNorm", "embedded")

    def _mask(self) -> str:
        """(B, 1, 1, T): 0 for a token, MASKED for padding."""
        kept = self._node("Cast", ["attention_mask"], "mask_float", to=TensorProto.FLOAT)
        axes = self._constant("mask_axes", np.array([1, 2], np.int64))
        wide = self._node("Unsqueeze", [kept, axes], "mask_wide")
        dropped = self._node("Sub", [self._number("one", 1.0), wide], "mask_dropped")
        return self._node("Mul", [dropped, self._number("masked", MASKED)], "mask")

    def _layer(self, hidden: str, mask: str, number: int, output: str) -> str:
        at = f"encoder.layer.{number}."
        tag = f"l{number}_"
        attended = self._attention(hidden, mask, at, tag)
        projected = self._linear(attended, at + "attention.output.dense", tag + "attention_out")
        residual = self._node("Add", [projected, hidden], tag + "residual1")
        normed = self._norm(residual, at + "attention.output.LayerNorm", tag + "norm1")
        wide = self._gelu(self._linear(normed, at + "intermediate.dense", tag + "wide"), tag)
        narrow = self._linear(wide, at + "output.dense", tag + "narrow")
        return self._norm(
            self._node("Add", [narrow, normed], tag + "residual2"), at + "output.LayerNorm", output
        )

    def _attention(self, hidden: str, mask: str, at: str, tag: str) -> str:
        size = self._hidden // self._heads
        query = self._split_heads(hidden, at, tag, "query", [0, 2, 1, 3])  # (B, A, T, D)
        key = self._split_heads(hidden, at, tag, "key", [0, 2, 3, 1])  # (B, A, D, T)
        value = self._split_heads(hidden, at, tag, "value", [0, 2, 1, 3])  # (B, A, T, D)
        scores = self._node("MatMul", [query, key], tag + "scores")  # (B, A, T, T)
        scaled = self._node("Mul", [scores, self._number("scale", 1.0 / np.sqrt(size))], tag + "scaled")
        weights = self._node(
            "Softmax", [self._node("Add", [scaled, mask], tag + "masked")], tag + "weights", axis=-1
        )
        mixed = self._node("MatMul", [weights, value], tag + "mixed")  # (B, A, T, D)
        joined = self._node("Transpose", [mixed], tag + "joined", perm=[0, 2, 1, 3])
        merge = self._constant("merge_heads", np.array([0, 0, self._hidden], np.int64))
        return self._node("Reshape", [joined, merge], tag + "context")  # (B, T, H)

    def _split_heads(self, hidden: str, at: str, tag: str, part: str, order: list[int]) -> str:
        flat = self._linear(hidden, f"{at}attention.self.{part}", tag + part)
        split = self._constant(
            "split_heads", np.array([0, 0, self._heads, self._hidden // self._heads], np.int64)
        )
        parted = self._node("Reshape", [flat, split], f"{tag}{part}_split")
        return self._node("Transpose", [parted], f"{tag}{part}_heads", perm=order)

    def _gelu(self, value: str, tag: str) -> str:
        scaled = self._node("Mul", [value, self._number("inverse_sqrt2", 1.0 / np.sqrt(2.0))], tag + "gelu1")
        erf = self._node("Erf", [scaled], tag + "gelu2")
        shifted = self._node("Add", [erf, self._number("one", 1.0)], tag + "gelu3")
        half = self._node("Mul", [value, self._number("half", 0.5)], tag + "gelu4")
        return self._node("Mul", [half, shifted], tag + "gelu")

    def _linear(self, value: str, name: str, output: str) -> str:
        matrix = self._constant(name + ".T", np.ascontiguousarray(self._array(name + ".weight").T))
        product = self._node("MatMul", [value, matrix], output + "_product")
        return self._node("Add", [product, self._weight(name + ".bias")], output)

    def _norm(self, value: str, name: str, output: str) -> str:
        parts = [value, self._weight(name + ".weight"), self._weight(name + ".bias")]
        return self._node("LayerNormalization", parts, output, axis=-1, epsilon=self._epsilon)

    def _array(self, name: str) -> NDArray[np.float32]:
        if name not in self._weights:
            raise VerificationError(
                f"model.safetensors: tensor {name} is missing; it is not the model it should be"
            )
        return np.asarray(self._weights[name], dtype=np.float32)

    def _weight(self, name: str) -> str:
        return self._constant(name, self._array(name))

    def _number(self, name: str, value: float) -> str:
        return self._constant(name, np.float32(value))

    def _constant(self, name: str, value: Any) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output
