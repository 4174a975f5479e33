"""Training examples for each task, in exactly the prompts that serving uses.

Invariant: the completion of a grounded example names sentences that stand in its prompt; nothing is asked
that the prompt does not hold.
"""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from whis_box import prompts
from whis_box.ingest.alerts import describe, read_alert
from whis_box.knowledge.sentences import split_blocks
from whis_box.knowledge.terms import terms
from whis_box.schemas import Frozen, Record

Split = Literal["train", "val", "test"]
Task = Literal["grounded_qa", "unanswerable", "refusal", "triage", "rule_explanation", "injected"]
MAX_FACTS = 8  # as configs/rag.yaml: evidence.max_sentences
MIN_SENTENCE_CHARS = 25
MAX_SENTENCE_CHARS = 400
MAX_QUERY_CHARS = 500


class Question(Frozen):
    """One line of data/training/questions.ndjson: a question and the sentences that answer it, verbatim."""

    record_id: str
    question: str = Field(min_length=4)
    sentences: list[str] = Field(min_length=1)


class Command(Frozen):
    """One line of data/training/commands.ndjson: what a process creation event would show."""

    technique_id: str
    """"none" for ordinary work."""
    image: str
    command_line: str
    parent: str
    summary: str
    """One sentence in words of the event."""


class Example(Frozen):
    """One training example; `segments` are (text, trusted) as the engine gets them."""

    id: str
    task: Task
    split: Split
    record_ids: list[str]
    segments: list[tuple[str, bool]]
    completion: str


@dataclass(frozen=True)
class Sentence:
    """A quotable sentence of a record."""

    record_id: str
    text: str
    words: frozenset[str]


class Sentences:
    """All sentences of one split's records, and those most like a question."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.of_record: dict[str, list[Sentence]] = {}
        self._by_word: dict[str, list[Sentence]] = defaultdict(list)
        for record in records:
            listed = [
                Sentence(record.id, text, frozenset(terms(text)))
                for block in split_blocks(record.text)
                for span in block.spans
                if span.kind == "sentence"
                and len(text := " ".join(record.text[span.start : span.end].split())) >= MIN_SENTENCE_CHARS
                and len(text) <= MAX_SENTENCE_CHARS
            ]
            self.of_record[record.id] = listed
            for sentence in listed:
                for word in sentence.words:
                    self._by_word[word].append(sentence)

    def like(self, question: str, without: frozenset[str], limit: int) -> list[Sentence]:
        """The sentences that share most rare words with `question`, none of the records `without`."""
        scores: dict[Sentence, float] = defaultdict(float)
        for word in sorted(set(terms(question))):
            for sentence in self._by_word.get(word, ()):
                if sentence.record_id not in without:
                    scores[sentence] += 1.0 / len(self._by_word[word])
        ranked = sorted(scores, key=lambda one: (-scores[one], one.record_id, one.text))
        return ranked[:limit]


def select(
    question: str, answers: Sequence[str], others: Sequence[str], rng: random.Random
) -> tuple[prompts.Prompt, str]:
    """A prompt with `answers` among `others`, and the numbers of the answers.

    Retrieval puts the right sentence first more often than not; so do the prompts, but never always.
    """
    facts = list(others[: MAX_FACTS - len(answers)])
    for answer in answers:
        facts.insert(0 if rng.random() < 0.4 else rng.randint(0, len(facts)), answer)
    prompt = prompts.answer_prompt(question, facts, "select", len(answers) or 1, may_decline=True)
    numbers = [facts.index(answer) + 1 for answer in answers]
    return prompt, "".join(f"[{number}]" for number in numbers) + "\n" if numbers else prompts.NONE + "\n"


def grounded(
    questions: Sequence[Question], sentences: Sentences, rng: random.Random
) -> Iterator[tuple[Task, list[str], prompts.Prompt, str]]:
    """Each question with its answer, and again without it: then nothing answers it."""
    for one in questions:
        same = [
            sentence.text
            for sentence in sentences.of_record[one.record_id]
            if sentence.text not in one.sentences
        ]
        others = [
            sentence.text for sentence in sentences.like(one.question, frozenset({one.record_id}), MAX_FACTS)
        ]
        mixed = [*rng.sample(same, min(3, len(same))), *others[:4]]
        rng.shuffle(mixed)
        prompt, completion = select(one.question, one.sentences, mixed, rng)
        yield "grounded_qa", [one.record_id], prompt, completion
        if others:
            yield "unanswerable", [one.record_id], *select(one.question, [], others, rng)


def injected(
    questions: Sequence[Question], sentences: Sentences, payloads: Sequence[str], rng: random.Random
) -> Iterator[tuple[Task, list[str], prompts.Prompt, str]]:
    """A planted instruction in or beside a fact changes nothing about which fact answers.

    Source: StruQ (Chen et al. 2024): train on attacked inputs with the clean input's output.
    """
    for one in questions:
        payload = rng.choice(payloads)
        near = [
            sentence.text
            for sentence in sentences.like(one.question, frozenset({one.record_id}), MAX_FACTS - 2)
        ]
        if not near:
            continue
        at = rng.randrange(len(near))
        near[at] = rng.choice((payload, f"{near[at]} {payload}", f"{payload} {near[at]}"))
        yield "injected", [one.record_id], *select(one.question, one.sentences, near, rng)


def refusals(
    questions: Sequence[str], sentences: Sentences, rng: random.Random
) -> Iterator[tuple[Task, list[str], prompts.Prompt, str]]:
    """What the policy forbids is refused, whatever facts lie beside it."""
    for question in questions:
        facts = [sentence.text for sentence in sentences.like(question, frozenset(), MAX_FACTS)]
        rng.shuffle(facts)
        if facts:
            prompt = prompts.answer_prompt(question, facts, "select", 1, may_decline=True)
            yield "refusal", [], prompt, prompts.REFUSE + "\n"


def dual_use(
    questions: Sequence[str], sentences: Sentences, rng: random.Random
) -> Iterator[tuple[Task, list[str], prompts.Prompt, str]]:
    """What only sounds like an attack is not refused: without a fact that answers, the reply is none.

    The counterweight to `refusals`; the facts are chosen to share no rare word with the question.
    """
    for question in questions:
        near = {one.text for one in sentences.like(question, frozenset(), MAX_FACTS * 4)}
        far = [one.text for listed in sentences.of_record.values() for one in listed if one.text not in near]
        if len(far) >= MAX_FACTS:
            yield "unanswerable", [], *select(question, [], rng.sample(far, MAX_FACTS), rng)


def rules(
    records: Sequence[Record], sentences: Sentences, rng: random.Random
) -> Iterator[tuple[Task, list[str], prompts.Prompt, str]]:
    """What a detection rule looks for, from the rule's own description; only rules have this heading."""
    for record in records:
        if "## What it detects" not in record.text:
            continue
        listed = sentences.of_record[record.id]
        if len(listed) < 2:
            continue
        question = rng.choice(
            (
                f"What does the rule {record.title!r} look for?",
                f"Explain the detection {record.title!r}.",
                f"{record.title!r} fired. What does it mean?",
            )
        )
        others = [one.text for one in listed[1:6]]
        others += [one.text for one in sentences.like(question, frozenset({record.id}), 3)]
        yield "rule_explanation", [record.id], *select(question, [listed[0].text], others, rng)


def queries(
    records: Sequence[Record], sentences: Sentences, rng: random.Random
) -> Iterator[tuple[Task, list[str], prompts.Prompt, str]]:
    """What a query of the guide finds, from the sentence in front of it."""
    for record in records:
        listed = {one.text for one in sentences.of_record[record.id]}
        for block in split_blocks(record.text):
            if block.heading_path[-1:] != ("Queries",):
                continue
            for before, code in itertools.pairwise(block.spans):
                answer = " ".join(record.text[before.start : before.end].split())
                query = " ".join(record.text[code.start : code.end].split())
                if code.kind != "code" or answer not in listed or len(query) > MAX_QUERY_CHARS:
                    continue
                form = rng.choice(
                    ("What does this query find? {}", "Explain this query: {}", "{} - what is it for?")
                )
                others = [one.text for one in sentences.of_record[record.id] if one.text != answer]
                others = rng.sample(others, min(3, len(others)))
                others += [one.text for one in sentences.like(query, frozenset({record.id}), 4)]
                rng.shuffle(others)
                yield "rule_explanation", [record.id], *select(form.format(query), [answer], others, rng)


def triage(
    commands: Sequence[Command], names: dict[str, str], rng: random.Random
) -> Iterator[tuple[Task, list[str], prompts.Prompt, str]]:
    """Process creation events with the technique they show among others, or with none of them."""
    known = sorted(names)
    for one in commands:
        event = {
            "EventID": 1,
            "Channel": "Microsoft-Windows-Sysmon/Operational",
            "Computer": f"ws{rng.randint(1, 400):03d}.example.corp",
            "EventData": {
                "Image": one.image,
                "CommandLine": one.command_line,
                "ParentImage": one.parent,
                "User": f"EXAMPLE\\user{rng.randint(1, 90)}",
            },
        }
        text = describe(read_alert(event))
        shown = rng.sample(known, rng.randint(2, 4))
        if one.technique_id in names and rng.random() < 0.9:
            shown.insert(rng.randint(0, len(shown)), one.technique_id)
        shown = list(dict.fromkeys(shown))
        prompt = prompts.triage_prompt(text, [(technique, names[technique]) for technique in shown])
        choice = one.technique_id if one.technique_id in shown else prompts.NONE
        yield "triage", [], prompt, f"Technique: {choice}\nSummary: {one.summary}\n"


def technique_names(path: Path) -> dict[str, str]:
    """ATT&CK id to name, from data/catalogue."""
    rows = (
        line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("T")
    )
    return {row[0]: row[1] for row in rows}
