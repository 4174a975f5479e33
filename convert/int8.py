"""Dynamic int8 of an ONNX graph, the same way for every model of the box."""

from __future__ import annotations

from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic


def quantize(fp32: Path, int8: Path) -> None:
    """Write `int8` from `fp32`: weights of products and look-ups, one scale a channel.

    `reduce_range`, because without it processors that lack VNNI saturate.
    """
    quantize_dynamic(
        fp32,
        int8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        op_types_to_quantize=["MatMul", "Gather"],
    )
