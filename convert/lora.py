"""A PEFT adapter as a GGUF adapter for one base, with its lineage inside.

    python -m convert.lora build/train/soc-analyst/1.0.0 --base build/models/base.gguf --out adapter.gguf

libllama scales by alpha / rank and knows nothing else, so everything PEFT does beyond that is folded into
the tensors or refused.
Invariant: base + this file computes what the training framework computed; a file for another base is not
written. Source: llama.cpp, src/llama-adapter.cpp and convert_lora_to_gguf.py (vendored in llama-cpp-python
0.3.36).
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFWriter
from numpy.typing import NDArray
from safetensors import SafetensorError

from whis_box.engine.gguf_header import read_header
from whis_box.errors import ConfigError, InputError, VerificationError, WhisError
from whis_box.paths import file_sha256, read_text, written_beside

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma")
# Rows of these are interleaved in GGUF, because libllama rotates neighbouring pairs there.
PERMUTED_ARCHITECTURES = ("llama",)
TENSOR_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
F16_MAX = 65504.0
MAX_ADAPTER_BYTES = 2 * 1024**3
_WEIGHT = re.compile(
    r"^base_model\.model\.(?:model\.)?layers\.(\d+)\.([a-z_.]+)\.lora_([AB])(?:\.default)?\.weight$"
)
# PEFT settings that have no place in a GGUF adapter, each with its harmless values.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "modules_to_save": (None, []),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "fan_in_fan_out": (False, None),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
}
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """One layer's adapter: A (r, in), B (out, r)."""

    a: Array
    b: Array

    @property
    def rank(self) -> int:
        """r."""
        return int(self.a.shape[0])


@dataclass(frozen=True)
class BaseFacts:
    """What an adapter must fit."""

    architecture: str
    n_head: int
    n_head_kv: int
    shapes: dict[str, tuple[int, int]]
    """(out, in) by tensor name."""


def main() -> int:
    """Convert one adapter."""
    parser = argparse.ArgumentParser(prog="convert.lora", description="PEFT adapter to GGUF adapter")
    parser.add_argument("source", type=Path, help="a run of train.lora, or a folder with adapter_config.json")
    parser.add_argument("--base", type=Path, required=True, help="the GGUF it will be served on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--outtype", choices=("f16", "f32"), default="f16")
    parser.add_argument(
        "--trained-on", metavar="SHA256", help="the base it was trained on, if --base was converted from that"
    )
    options = parser.parse_args()
    try:
        size = convert(options.source, options.base, options.out, options.outtype, options.trained_on)
    except WhisError as error:
        print(f"convert.lora: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{options.out} {size} bytes {file_sha256(options.out)}")
    return 0


def convert(source: Path, base: Path, out: Path, outtype: str = "f16", trained_on: str | None = None) -> int:
    """Write `out`; gives its size in bytes.

    Raises: ConfigError for what a GGUF adapter cannot express; VerificationError for another base or a
    damaged file; InputError for values outside f16; NotReadyError; StorageError.
    """
    folder = source / "adapter" if (source / "adapter").is_dir() else source
    config = read_config(folder)
    lineage = read_lineage(source, base, trained_on)
    facts = read_base(base)
    pairs = read_pairs(folder / "adapter_model.safetensors")
    alpha = written_alpha(config)
    tensors: dict[str, Array] = {}
    for module, pair in sorted(pairs.items()):
        name = tensor_name(module, facts)
        check_shape(name, pair, facts, folder)
        b = pair.b * np.float32(fold_factor(module, pair.rank, config, alpha))
        tensors[f"{name}.lora_a"] = pair.a
        tensors[f"{name}.lora_b"] = permute(b, name, facts)
    _write(out, tensors, alpha, outtype, facts.architecture, lineage)
    return out.stat().st_size


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a plain LoRA adapter.

    Raises: ConfigError naming every setting that cannot be converted; NotReadyError; StorageError.
    """
    path = folder / "adapter_config.json"
    try:
        config: dict[str, Any] = json.loads(read_text(path, "name a folder that PEFT saved"))
    except ValueError as cause:
        raise ConfigError(f"{path}: not JSON: {cause}") from None
    complaints = [
        f"{name} is {config[name]!r}"
        for name, harmless in _REFUSED.items()
        if name in config and config[name] not in harmless
    ]
    if config.get("peft_type") != "LORA":
        complaints.append(f"peft_type is {config.get('peft_type')!r}, not 'LORA'")
    if not config.get("lora_alpha"):
        complaints.append("lora_alpha is 0, which libllama reads as a scale of 1")
    if complaints:
        raise ConfigError(
            f"{path}: a GGUF adapter cannot hold this: {'; '.join(complaints)}; train without it"
        )
    return config


def read_lineage(source: Path, base: Path, trained_on: str | None) -> dict[str, str]:
    """What goes into the file about where it comes from.

    Raises: VerificationError if it was trained on another base; NotReadyError; StorageError.
    """
    base_sha256 = file_sha256(base)
    kept = {"base_sha256": base_sha256}
    path = source / "lineage.json"
    if not path.is_file():
        return kept
    lineage = json.loads(read_text(path))
    wanted = lineage["base_sha256"]
    if wanted not in (base_sha256, trained_on):
        raise VerificationError(
            f"{source}: trained on the base {wanted}, and {base} is {base_sha256}; give that base, or "
            "--trained-on with the first hash if this GGUF was converted or quantized from it"
        )
    kept["trained_on_sha256"] = wanted
    names = ("dataset", "dataset_sha256", "samples_sha256", "prompt_sha256", "run", "commit")
    kept |= {name: str(lineage[name]) for name in names}
    kept["peft"] = lineage["environment"]["peft"]
    return kept


def read_base(path: Path) -> BaseFacts:
    """Architecture, heads and shapes of a base GGUF.

    Raises: ConfigError for an architecture that is not covered; VerificationError for a damaged file.
    """
    header = read_header(path)
    if header.architecture not in ARCHITECTURES:
        raise ConfigError(
            f"{path}: adapters of architecture {header.architecture!r} cannot be converted; "
            f"covered are {', '.join(ARCHITECTURES)} (a Mistral of Hugging Face is 'llama' as a GGUF)"
        )
    reader = GGUFReader(path)
    shapes = {
        tensor.name.removesuffix(".weight"): (int(tensor.shape[1]), int(tensor.shape[0]))
        for tensor in reader.tensors
        if len(tensor.shape) == 2
    }
    if any(".attn_qkv" in name for name in shapes):
        raise ConfigError(f"{path}: its q, k and v are one fused tensor; convert the base without fusing")
    heads = [
        int(reader.fields[f"{header.architecture}.attention.{name}"].contents())
        for name in ("head_count", "head_count_kv")
    ]
    return BaseFacts(header.architecture, heads[0], heads[1], shapes)


def read_pairs(path: Path) -> dict[str, Pair]:
    """(A, B) by module, "layers.0.self_attn.q_proj".

    Raises: ConfigError for a tensor that has no place; VerificationError for half a pair or a damaged file.
    """
    from safetensors.torch import load_file

    file_sha256(path, "name a folder that PEFT saved")  # says what is missing
    try:
        tensors = load_file(path)
    except SafetensorError as cause:
        raise VerificationError(f"{path}: not a safetensors file: {cause}") from None
    halves: dict[str, dict[str, Array]] = {}
    unknown = []
    for name, tensor in tensors.items():
        match = _WEIGHT.match(name)
        if match is None or match[2] not in TENSOR_NAMES:
            unknown.append(name)
            continue
        halves.setdefault(f"layers.{match[1]}.{match[2]}", {})[match[3]] = tensor.float().numpy()
    if unknown:
        raise ConfigError(
            f"{path}: {len(unknown)} tensors have no place in a GGUF adapter, such as {unknown[0]}; "
            f"only {', '.join(TENSOR_NAMES)} can be converted"
        )
    torn = [module for module, half in halves.items() if set(half) != {"A", "B"}]
    if torn or not halves:
        raise VerificationError(f"{path}: {torn[0] if torn else 'no module'} has both lora_A and lora_B")
    return {module: Pair(half["A"], half["B"]) for module, half in halves.items()}


def tensor_name(module: str, facts: BaseFacts) -> str:
    """GGUF name of a module, "blk.0.attn_q.weight".

    Raises: VerificationError if the base has no such tensor.
    """
    _, layer, kind = module.split(".", 2)
    name = f"blk.{layer}.{TENSOR_NAMES[kind]}"
    if name not in facts.shapes:
        raise VerificationError(f"the base has no tensor {name}.weight for {module}; it is another base")
    return f"{name}.weight"


def check_shape(name: str, pair: Pair, facts: BaseFacts, folder: Path) -> None:
    """Raises: VerificationError if the pair does not fit the base's tensor."""
    n_out, n_in = facts.shapes[name.removesuffix(".weight")]
    if pair.a.shape != (pair.rank, n_in) or pair.b.shape != (n_out, pair.rank):
        raise VerificationError(
            f"{folder}: {name} needs A (r, {n_in}) and B ({n_out}, r), and has {pair.a.shape} and "
            f"{pair.b.shape}; it was trained on another base"
        )


def written_alpha(config: Mapping[str, Any]) -> float:
    """`adapter.lora.alpha`: such that alpha / r is PEFT's scale for modules without a pattern."""
    alpha, rank = float(config["lora_alpha"]), int(config["r"])
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def fold_factor(module: str, rank: int, config: Mapping[str, Any], alpha: float) -> float:
    """What B is multiplied with, so that libllama's alpha / rank gives PEFT's scale for this module.

    Raises: VerificationError if the tensors' rank is not the configured one.
    """
    wanted_rank = int(_of_pattern(config.get("rank_pattern"), module, config["r"]))
    if rank != wanted_rank:
        raise VerificationError(f"{module}: rank {rank}, and adapter_config.json says {wanted_rank}")
    module_alpha = float(_of_pattern(config.get("alpha_pattern"), module, config["lora_alpha"]))
    scale = module_alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return scale / (alpha / rank)


def _of_pattern(pattern: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The first key that is the module's name or its end. Source: peft/utils/other.py, get_pattern_key."""
    for key, value in (pattern or {}).items():
        if re.match(rf"^(?:.*\.)?(?:{key})$", f"model.{module}"):
            return value
    return default


def permute(b: Array, name: str, facts: BaseFacts) -> Array:
    """Rows of B in libllama's order: halves of each head interleaved, for q and k of some architectures.

    Source: llama.cpp, conversion/llama.py `permute`.
    """
    if facts.architecture not in PERMUTED_ARCHITECTURES:
        return b
    heads = {"attn_q": facts.n_head, "attn_k": facts.n_head_kv}.get(name.split(".")[2])
    if heads is None:
        return b
    n_out, rank = b.shape
    return b.reshape(heads, 2, n_out // heads // 2, rank).swapaxes(1, 2).reshape(n_out, rank)


def _write(
    out: Path,
    tensors: Mapping[str, Array],
    alpha: float,
    outtype: str,
    architecture: str,
    lineage: Mapping[str, str],
) -> None:
    largest = max(float(np.abs(one).max()) for one in tensors.values())
    if not math.isfinite(largest) or (outtype == "f16" and largest > F16_MAX):
        raise InputError(
            f"the adapter's largest weight is {largest}; f16 ends at {F16_MAX}, use --outtype f32"
        )
    kind = np.float16 if outtype == "f16" else np.float32
    with written_beside(out) as beside:
        writer = GGUFWriter(beside, architecture)
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", alpha)
        for key, value in sorted(lineage.items()):
            writer.add_string(f"whis.{key}", value)
        for name, tensor in tensors.items():
            writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=kind))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        read_header(beside)


if __name__ == "__main__":
    sys.exit(main())
