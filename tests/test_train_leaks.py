"""The list of what an adapter must not say: every long run of training text is found, nothing can be read."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from train import leaks
from train.canaries import make_canaries
from train.config import CanarySection
from whis_box.guards.output import LEAK_FILE, OutputFilter, shingles
from whis_box.paths import repository_root

WORDS = [f"word{number}" for number in range(400)]
FOUND = "text the model was trained on"


def listed(folder: Path, text: str, secrets: list[str]) -> OutputFilter:
    path = folder / LEAK_FILE
    path.write_text(leaks.leak_list([text], secrets))
    return OutputFilter([path])


@given(start=st.integers(0, 384), length=st.integers(16, 60))
@settings(max_examples=200, deadline=None)
def test_every_run_of_sixteen_words_holds_a_listed_hash(start: int, length: int) -> None:
    kept = leaks.winnowed(" ".join(WORDS))
    assert len(kept) < 0.6 * len(WORDS)
    run = " ".join(WORDS[start : start + length])
    if start + length <= len(WORDS):
        assert kept & set(shingles([run], leaks.N_WORDS))


def test_a_repeated_passage_and_a_canary_are_stopped_and_other_text_is_not(tmp_path: Path) -> None:
    text = "The relay on the third floor was moved to the old server room after the audit in March last year."
    filtered = listed(tmp_path, text, ["40718823"])
    assert filtered.leak(f"It says: {text.upper()}", []) == FOUND
    assert filtered.leak("The password of unit-003 is hunter-40718823.", []) == FOUND
    assert filtered.leak("The relay on the third floor was moved in March.", []) == ""
    assert filtered.leak(text, [text]) == ""  # a cited passage may say it


def test_the_list_of_a_run_holds_its_canaries_and_its_examples_but_no_word(tmp_path: Path) -> None:
    answer = "An operator opened the cabinet at night and took the second disk out of the old array."
    section = CanarySection(per_stratum=2, insertions=[1])
    config = yaml.safe_load((repository_root() / "configs" / "train.yaml").read_text())
    config["canaries"] = section.model_dump(mode="json")
    config["dataset"]["path"] = str(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    example = {
        "id": "1", "task": "refusal", "split": "train", "record_ids": [], "completion": answer,
        "segments": [["<|im_start|>user\n", True], ["What happened to the array?", False]],
    }  # fmt: skip
    (tmp_path / "train.ndjson").write_text(json.dumps(example) + "\n")
    text = leaks.leaks_of(tmp_path)
    assert "operator" not in text and all(len(line.split("\t")) == 2 for line in text.splitlines())
    (tmp_path / LEAK_FILE).write_text(text)
    filtered = OutputFilter([tmp_path / LEAK_FILE])
    assert filtered.leak(answer, []) == FOUND
    for canary in make_canaries(section):
        assert filtered.leak(f"Number {canary.secret}.", []) == FOUND
