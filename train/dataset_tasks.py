"""Training examples for each task, in exactly the prompts that serving uses.

Invariant: the completion of a grounded example names sentences that stand in its prompt; nothing is asked
that the prompt does not hold.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from train.served_facts import ServedFacts
from whis_box import prompts
from whis_box.ingest.alerts import describe, described_values, read_alert, search_text
from whis_box.knowledge.sentences import split_blocks
from whis_box.knowledge.techniques import Catalogue, match_techniques
from whis_box.schemas import Frozen, Record

Split = Literal["train", "val", "test"]
Task = Literal["grounded_qa", "unanswerable", "refusal", "triage", "rule_explanation", "injected"]
MAX_QUERY_CHARS = 500
Made = Iterator[tuple[Task, list[str], prompts.Prompt, str]]


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

    def occurred(self, rng: random.Random) -> Observed:
        """The event that Sysmon would log, on a host and for a user drawn from `rng`."""
        event = {
            "EventID": 1,
            "Channel": "Microsoft-Windows-Sysmon/Operational",
            "Computer": f"ws{rng.randint(1, 400):03d}.example.corp",
            "EventData": {
                "Image": self.image,
                "CommandLine": self.command_line,
                "ParentImage": self.parent,
                "User": f"EXAMPLE\\user{rng.randint(1, 90)}",
            },
        }
        return Observed(technique_id=self.technique_id, event=event, summary=self.summary)


class Observed(Frozen):
    """One line of data/training/events.ndjson: an event as a product logs it."""

    technique_id: str
    """What it shows; "none" for ordinary work."""
    event: dict[str, Any]
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


def select(
    question: str, answers: Sequence[str], facts: Sequence[str], rng: random.Random
) -> tuple[prompts.Prompt, str]:
    """The prompt of serving and the reply: the numbers of those facts that answer, or none."""
    prompt = prompts.answer_prompt(
        question, facts, "select", len(answers) or 1, may_decline=True, mark=_mark(rng)
    )
    numbers = sorted(facts.index(answer) + 1 for answer in answers)
    return prompt, "".join(f"[{number}]" for number in numbers) + "\n" if numbers else prompts.NONE + "\n"


def _mark(rng: random.Random) -> str:
    """What guards.gate puts around untrusted text."""
    return f"{rng.getrandbits(32):08x}"


def put_in(answers: Sequence[str], others: Sequence[str], most: int, rng: random.Random) -> list[str]:
    """`others` with those of `answers` that are missing put in anywhere; at most `most`."""
    facts = [*others]
    missing = [one for one in answers if one not in facts]
    while missing and len(facts) + len(missing) > most:
        facts.remove(next(one for one in reversed(facts) if one not in answers))
    for answer in missing:
        facts.insert(rng.randint(0, len(facts)), answer)
    return facts


def grounded(questions: Sequence[Question], served: ServedFacts, rng: random.Random) -> Made:
    """Each question with what retrieval shows for it, and again without its answer: then nothing answers it.

    Sentences that say the same as an answer are left out: whether they answer, nobody has decided.
    """
    for one in questions:
        shown = [
            fact.text
            for fact in served.shown(one.question)
            if fact.text in one.sentences or not served.say_the_same(one.sentences, fact.text)
        ]
        facts = put_in(one.sentences, shown, served.most, rng)
        yield "grounded_qa", [one.record_id], *select(one.question, one.sentences, facts, rng)
        others = beside(one, served)
        if others:
            yield "unanswerable", [one.record_id], *select(one.question, [], others, rng)


def beside(question: Question, served: ServedFacts) -> list[str]:
    """What retrieval would show if the question's document did not exist."""
    found = served.like(question.question, frozenset({question.record_id}))
    others = [fact.text for fact in found if not served.say_the_same(question.sentences, fact.text)]
    return others[: served.most]


def injected(
    questions: Sequence[Question], served: ServedFacts, payloads: Sequence[str], rng: random.Random
) -> Made:
    """A planted instruction in or beside a fact changes nothing about which fact answers.

    Source: StruQ (Chen et al. 2024): train on attacked inputs with the clean input's output.
    """
    for one in questions:
        near = beside(one, served)
        if not near:
            continue
        payload, at = rng.choice(payloads), rng.randrange(len(near))
        near[at] = rng.choice((payload, f"{near[at]} {payload}", f"{payload} {near[at]}"))
        facts = put_in(one.sentences, near[: served.most - len(one.sentences)], served.most, rng)
        yield "injected", [one.record_id], *select(one.question, one.sentences, facts, rng)


def refusals(questions: Sequence[str], served: ServedFacts, rng: random.Random) -> Made:
    """What the policy forbids is refused, whatever facts lie beside it."""
    for question in questions:
        facts = [sentence.text for sentence in served.shown(question)]
        if facts:
            prompt = prompts.answer_prompt(question, facts, "select", 1, may_decline=True, mark=_mark(rng))
            yield "refusal", [], prompt, prompts.REFUSE + "\n"


def dual_use(questions: Sequence[str], served: ServedFacts, rng: random.Random) -> Made:
    """What only sounds like an attack is not refused: without a fact that answers, the reply is none.

    The counterweight to `refusals`; the facts are drawn from what retrieval does not find.
    """
    for question in questions:
        near = {one.text for one in served.like(question, frozenset())}
        far = [one.text for listed in served.of_record.values() for one in listed if one.text not in near]
        if len(far) >= served.most:
            yield "unanswerable", [], *select(question, [], rng.sample(far, served.most), rng)


def rules(records: Sequence[Record], served: ServedFacts, rng: random.Random) -> Made:
    """What a detection rule looks for, from the rule's own description; only rules have this heading."""
    for record in records:
        if "## What it detects" not in record.text:
            continue
        listed = served.of_record[record.id]
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
        others += [one.text for one in served.like(question, frozenset({record.id}))[:2]]
        facts = put_in([listed[0].text], others, served.most, rng)
        yield "rule_explanation", [record.id], *select(question, [listed[0].text], facts, rng)


def queries(records: Sequence[Record], served: ServedFacts, rng: random.Random) -> Made:
    """What a query of the guide finds, from the sentence in front of it."""
    for record in records:
        listed = {one.text for one in served.of_record[record.id]}
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
                others = [one.text for one in served.of_record[record.id] if one.text != answer]
                others = rng.sample(others, min(3, len(others)))
                others += [one.text for one in served.like(query, frozenset({record.id}))[:4]]
                rng.shuffle(others)
                facts = put_in([answer], others, served.most, rng)
                yield "rule_explanation", [record.id], *select(form.format(query), [answer], facts, rng)


def triage(events: Sequence[Observed], served: ServedFacts, catalogue: Catalogue, rng: random.Random) -> Made:
    """Events with the technique they show among others, or with none of them.

    The others are those that the box finds evidence for, then any.
    """
    known = sorted(catalogue.ids())
    for one in events:
        alert = read_alert(one.event)
        text = describe(alert)
        candidates = served.candidates(search_text(alert) or text)
        values, rarity = described_values(text), served.rarity(candidates)
        found = [each.id for each in match_techniques(values, (), candidates, rarity, catalogue)]
        left_out = rng.random() < 0.1  # nothing that is offered fits
        shown = [each for each in found[: rng.randint(2, 4)] if not (left_out and each == one.technique_id)]
        shown += rng.sample(known, max(0, rng.randint(2, 4) - len(shown)))
        if one.technique_id in catalogue and one.technique_id not in shown and not left_out:
            shown.insert(rng.randint(0, len(shown)), one.technique_id)
        shown = list(dict.fromkeys(shown))
        offered = [(technique, catalogue.name(technique)) for technique in shown]
        prompt = prompts.triage_prompt(text, offered, _mark(rng))
        choice = one.technique_id if one.technique_id in shown else prompts.NONE
        yield "triage", [], prompt, f"Technique: {choice}\nSummary: {one.summary}\n"
