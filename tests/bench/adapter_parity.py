"""Converted adapters on tiny random models: libllama against PEFT, on f32, f16, q8_0 and q4_0 bases.

    python -m tests.bench.adapter_parity

Reference: PEFT in float32 on the f16 weights. Limit of f32 and f16 rows: 2e-2. On f16
bases libllama rounds activations to f16, so that logits closer than that change places.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from convert import lora
from convert.base import quantize
from tests.test_convert_lora import prompts, reference_logits, trained
from tests.tiny_models import KINDS, libllama_logits, tiny_model, write_gguf
from whis_box.engine.cpu import cpu_model
from whis_box.paths import source_commit


def main() -> None:
    """Print one line for each architecture and type of base."""
    wanted = prompts(1)
    print(f"{cpu_model()} · commit {source_commit()[:12]} · {len(wanted)} prompts")
    print("model    base  max |difference|  top-1 agreement  adapter moves logits by")
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            adapted, base, saved = trained(kind, folder)
            lora.convert(saved, base, folder / "adapter.gguf", "f32")
            theirs = reference_logits(adapted, wanted)
            bases = {
                "f32": folder / "f32.gguf",
                "f16": base,
                "q8_0": folder / "q8.gguf",
                "q4_0": folder / "q4.gguf",
            }
            write_gguf(tiny_model(kind), bases["f32"], np.float32)
            quantize(base, bases["q8_0"], "Q8_0")
            quantize(base, bases["q4_0"], "Q4_0")
            for name, path in bases.items():
                ours = libllama_logits(path, folder / "adapter.gguf", wanted)
                worst = np.abs(ours - theirs).max()
                moved = np.abs(libllama_logits(path, None, wanted) - ours).max()
                agree = (ours.argmax(axis=1) == theirs.argmax(axis=1)).mean()
                print(
                    f"{kind:<8} {name:<5} {worst:>16.5f}  {agree:>15.3f}  {moved:>10.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
