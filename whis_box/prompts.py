"""The prompts and output grammars: one module for serving, training and evaluation.

Invariant: text from a user, an alert or a document is only ever an untrusted segment, so its special tokens
are plain text; the output grammar names the numbers of the sentences that were shown and no others.
Source of the chat template: ChatML, as in SmolLM2's and Qwen's model cards; written here, not read from the
GGUF.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

AnswerStyle = Literal["select", "compose"]
Segments = tuple[tuple[str, bool], ...]

ANSWER_SYSTEM = (
    "You are a SOC analyst's assistant. You answer only from the numbered facts. "
    "Begin each line with the number of the fact it comes from, like [2]."
)
SELECT_SYSTEM = (
    "You are a SOC analyst's assistant. "
    "Reply with the number of the fact that answers the question, like [2]."
)
TRIAGE_SYSTEM = (
    "You are a SOC analyst's assistant. Choose the technique that the alert shows. "
    "Say in one sentence what happened. "
    "Use only words from the alert."
)
# With a model that was trained to: no fact answers, or the question is one that must not be answered.
DECLINE_SYSTEM = (
    SELECT_SYSTEM + " Reply none if no fact answers it. Reply refuse if it asks for harm or for secrets."
)
NONE = "none"
REFUSE = "refuse"
_DIGITS = re.compile(r"\d+(?:\.\d+)*")
MAX_LINE_CHARS = 240
MAX_SUMMARY_CHARS = 150
MAX_LITERALS = 200


@dataclass(frozen=True)
class Prompt:
    """What the engine needs for one generation."""

    segments: Segments
    grammar: str


def answer_prompt(
    question: str,
    sentences: Sequence[str],
    style: AnswerStyle,
    max_lines: int,
    may_decline: bool = False,
    mark: str = "",
) -> Prompt:
    """Ask for an answer from `sentences`, numbered from 1.

    `select`: only the numbers are written and code expands them; `compose`: each line is a number and a
    sentence. `may_decline`: the model may also write NONE or REFUSE, which only an adapter was trained to.
    `mark` is a word that the facts cannot hold; they are put between two of it.
    """
    facts = "\n".join(f"[{n}] {' '.join(sentence.split())}" for n, sentence in enumerate(sentences, start=1))
    # Asked before and after: a small model reads the facts with the question in mind only if it comes first.
    # Source: query-aware contextualization, Liu et al. 2023, "Lost in the Middle".
    body = f"Question: {question}\n\n{_between('Facts', facts, mark)}\n\nQuestion: {question}"
    if style == "select":
        system = DECLINE_SYSTEM if may_decline else SELECT_SYSTEM
        return Prompt(chat(system, body), select_grammar(len(sentences), max_lines, may_decline))
    return Prompt(
        chat(ANSWER_SYSTEM, body), compose_grammar(len(sentences), max_lines, [*sentences, question])
    )


def triage_prompt(
    alert_text: str, techniques: Sequence[tuple[str, str]], mark: str = "", shown: str = ""
) -> Prompt:
    """Ask for one of `techniques` (id, name), or none, and a one-sentence summary of the alert.

    `mark` as in `answer_prompt`; `shown` is the alert as the model sees it, when that is another text.
    """
    listed = "\n".join(f"{technique_id} {name}" for technique_id, name in techniques)
    # The alert first: behind it, a small model reads each technique with the alert in mind.
    body = f"{_between('Alert', shown or alert_text, mark)}\n\nTechniques:\n{listed}\nnone"
    choices = " | ".join(_quoted(technique_id) for technique_id, _ in techniques)
    choice = f'({choices} | "none")' if choices else '"none"'
    line = _line_regex([alert_text], MAX_SUMMARY_CHARS)
    grammar = f'start: "Technique: " {choice} "\\nSummary: " TEXT "\\n"\nTEXT: {line}\n'
    return Prompt(chat(TRIAGE_SYSTEM, body), grammar)


def _between(title: str, untrusted: str, mark: str) -> str:
    return f"{title} ({mark}):\n{untrusted}\n({mark})" if mark else f"{title}:\n{untrusted}"


def system_prompts() -> tuple[str, ...]:
    """Every text that stands in the place of the system: none of it may be repeated to a user."""
    return ANSWER_SYSTEM, SELECT_SYSTEM, TRIAGE_SYSTEM, DECLINE_SYSTEM


def chat(system: str, user: str) -> Segments:
    """One ChatML turn; only the markers are trusted."""
    return (
        ("<|im_start|>system\n", True),
        (system, False),
        ("<|im_end|>\n<|im_start|>user\n", True),
        (user, False),
        ("<|im_end|>\n<|im_start|>assistant\n", True),
    )


def static_prefixes() -> tuple[Segments, ...]:
    """What every prompt of a kind begins with, so that the engine computes it once."""
    systems = (SELECT_SYSTEM, DECLINE_SYSTEM, ANSWER_SYSTEM, TRIAGE_SYSTEM)
    return tuple(chat(system, "")[:3] for system in systems)


def select_grammar(n_sentences: int, max_lines: int, may_decline: bool = False) -> str:
    """`[2]` or `[2][5]`: between one and `max_lines` numbers of shown sentences, or a word that declines."""
    numbers = f"one{{1,{max_lines}}}"
    start = f'({numbers} | "{NONE}" | "{REFUSE}")' if may_decline else numbers
    return f'start: {start} "\\n"\none: "[" NUMBER "]"\nNUMBER: {_numbers(n_sentences)}\n'


def compose_grammar(n_sentences: int, max_lines: int, sources: Sequence[str]) -> str:
    """Lines of `[n] Sentence.`; digits come only as numbers that stand in `sources`."""
    return (
        f'start: line{{1,{max_lines}}}\nline: "[" NUMBER "] " TEXT "\\n"\n'
        f"NUMBER: {_numbers(n_sentences)}\nTEXT: {_line_regex(sources)}\n"
    )


def _numbers(count: int) -> str:
    return " | ".join(f'"{n}"' for n in range(1, count + 1))


def _line_regex(sources: Sequence[str], max_chars: int = MAX_LINE_CHARS) -> str:
    """One sentence without brackets, markup or control characters, with a closed vocabulary of numbers."""
    numbers = list(dict.fromkeys(number for source in sources for number in _DIGITS.findall(source)))[
        :MAX_LITERALS
    ]
    plain = r"[^\[\]<>\x00-\x1f\x7f0-9]"
    if not numbers:
        return f"/[A-Z`]{plain}{{12,{max_chars}}}[.]/"
    longest_first = sorted(numbers, key=len, reverse=True)
    literal = "|".join(number.replace(".", r"\.") for number in longest_first)
    return f"/[A-Z`]({plain}|({literal}){plain}){{12,{max_chars}}}[.]/"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_COMPOSED_LINE = re.compile(r"^\[(\d+)\] (.+)$")
_SELECTED = re.compile(r"\[(\d+)\]")
_TRIAGE = re.compile(r"^Technique: (\S+)\nSummary: (.+)$", re.MULTILINE)


def parse_answer(text: str, style: AnswerStyle) -> list[tuple[int, str]]:
    """(number, sentence) pairs; the sentence is empty in `select`. A cut line is left out."""
    if style == "select":
        return [(int(number), "") for number in dict.fromkeys(_SELECTED.findall(text))]
    complete = text if text.endswith("\n") else text.rpartition("\n")[0]
    matches = (_COMPOSED_LINE.match(line) for line in complete.splitlines())
    return [(int(match.group(1)), match.group(2).strip()) for match in matches if match]


def declined(text: str) -> str | None:
    """NONE or REFUSE if that is what was written."""
    word = text.strip()
    return word if word in (NONE, REFUSE) else None


def parse_triage(text: str) -> tuple[str, str]:
    """(technique id or "none", summary); the summary is empty when the token limit cut it off."""
    match = _TRIAGE.match(text)
    if match and text.endswith("\n"):
        return match.group(1), match.group(2).strip()
    choice = re.match(r"Technique: (\S+)\n", text)
    return (choice.group(1) if choice else "none"), ""


def prompt_sha256() -> str:
    """Digest of every prompt and grammar this module makes, taken over a fixed example."""
    example = ("Which event is 4625?", ["Event 4625 is a failed logon."])
    prompts = [
        answer_prompt(*example, style="select", max_lines=2),
        answer_prompt(*example, style="select", max_lines=2, may_decline=True),
        answer_prompt(*example, style="compose", max_lines=2),
        triage_prompt("Event 4625 for bob", [("T1110", "Brute Force")]),
        triage_prompt("Event 4625 for bob", [("T1110", "Brute Force")], mark="0f"),
    ]
    return hashlib.sha256(repr(prompts).encode()).hexdigest()
