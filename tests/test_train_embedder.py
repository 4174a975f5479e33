"""The pairs and batches of the embedder's tuning: no answer twice in a batch, nothing that is reported on."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bench import retrieval_sets
from train import embedder
from train.embedder import Pair, Settings, batches, bucket, procedures, sigma
from whis_box.errors import NotReadyError


def technique(number: int) -> dict[str, Any]:
    return {
        "id": f"attack-pattern--{number}",
        "type": "attack-pattern",
        "name": f"Technique {number}",
        "description": "What it is. (Citation: Somebody 2020)",
        "external_references": [{"source_name": "mitre-attack", "external_id": f"T{1000 + number}"}],
    }


def test_no_two_pairs_of_a_batch_have_the_same_answer() -> None:
    pairs = [Pair(f"question {n}", f"passage {n % 7}", str(n % 7)) for n in range(70)]
    made = list(batches(pairs, Settings(batch=5), epoch=0))
    assert len(made) >= 10
    assert all(len({one.key for one in batch}) == len(batch) == 5 for batch in made)


def test_a_pair_meets_a_sibling_now_and_then_and_never_itself() -> None:
    pairs = [Pair(f"seen {n}", "description", "same") for n in range(40)]
    partners = [batch[0] for batch in batches(pairs, Settings(batch=1), epoch=0)]
    assert any(one.passage == "description" for one in partners)
    assert any(one.passage.startswith("seen") for one in partners)
    assert all(one.passage != one.query for one in partners)


def test_epochs_differ_and_a_repeated_one_does_not() -> None:
    pairs = [Pair(f"question {n}", f"passage {n}", str(n)) for n in range(60)]
    first, again, second = (list(batches(pairs, Settings(batch=8), epoch)) for epoch in (0, 0, 1))
    assert first == again and first != second


def test_procedures_of_held_out_sources_are_never_trained_on() -> None:
    objects: list[dict[str, Any]] = [technique(1)]
    sources = [f"malware--{n}" for n in range(200)]
    objects += [
        {
            "type": "relationship",
            "relationship_type": "uses",
            "source_ref": source,
            "target_ref": "attack-pattern--1",
            "description": f"[It](https://x.example) did {source}.",
        }
        for source in sources
    ]
    trained = {one.query for one in procedures(objects)}
    held_out = [one for one in sources if retrieval_sets._bucket(one) < retrieval_sets.HELD_OUT_PERCENT]
    assert 30 < len(held_out) < 90
    assert len(trained) == len(sources) - len(held_out)
    assert not any(f"It did {one}." in trained for one in held_out)


def test_rules_that_the_benchmark_reports_on_are_never_trained_on(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for n in range(60):
            rule = (
                f"title: Rule {n}\ndescription: Detects thing {n}\ntags: [attack.t1001, attack.execution]\n"
            )
            archive.writestr(f"rules/{n}.yml", rule)
    path = tmp_path / "rules.zip"
    path.write_bytes(packed.getvalue())
    trained = {one.query for one in sigma(path, [technique(1)])}
    asked = retrieval_sets.sigma(path, {"T1001"})
    assert len(asked) == 60 and trained == {one.text for one in asked if one.is_dev}
    assert 15 < len(trained) < 45


@pytest.mark.parametrize("key", ["", "malware--1", "Regel über Umlaute"])
def test_the_benchmark_and_the_training_split_alike(key: str) -> None:
    assert bucket(key) == retrieval_sets._bucket(key)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match=r"model\.safetensors: missing"):
        embedder.train(Settings(), tmp_path, tmp_path / "bundle.json", None)


def test_vectors_are_means_of_the_words_without_the_padding() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "c": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.enable_padding()
    small = BertConfig(vocab_size=4, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = BertModel(small, add_pooling_layer=False).eval()
    with torch.no_grad():
        together = embedder.embed(model, words, ["a b c", "a"], torch.device("cpu"))
        alone = embedder.embed(model, words, ["a"], torch.device("cpu"))
    assert torch.allclose(together[1], alone[0], atol=1e-5)
    assert torch.allclose(together.norm(dim=1), torch.ones(2))
