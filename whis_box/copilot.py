"""The way of a question, and of an alert, through the box: clean, retrieve, prompt, generate, bind, check.

Invariant: every quote that leaves here has been compared with its record, and no verdict that closes an
alert is given.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from whis_box import prompts
from whis_box.config import BoxConfig, ModelConfig
from whis_box.engine.protocol import Completion, GenerateRequest
from whis_box.errors import InputError
from whis_box.guards import decision
from whis_box.guards.binding import BoundAnswer, CitationList, bind, cite
from whis_box.guards.draft import AnswerDraft
from whis_box.guards.gate import Gate
from whis_box.guards.grounding import check_citation
from whis_box.guards.release import may_leave, release_answer, release_triage
from whis_box.guards.screen import screen_evidence, screen_fields, unsuspected
from whis_box.guards.text import clean_text
from whis_box.ingest.alerts import Alert, describe, described_values, observables, read_alert, search_text
from whis_box.knowledge import identifiers
from whis_box.knowledge.evidence import Evidence, EvidenceSelector, EvidenceSentence
from whis_box.knowledge.facets import Filter
from whis_box.knowledge.retriever import Retriever
from whis_box.knowledge.techniques import Catalogue, TechniqueEvidence, match_techniques
from whis_box.knowledge.terms import terms
from whis_box.schemas import (
    TLP_ORDER,
    Answer,
    Citation,
    Finding,
    Hit,
    Identifiers,
    Lineage,
    Timings,
    Tlp,
    Triage,
)

NOTHING_FOUND = "The box holds no passage that answers this question."
CLOSEST = "The closest passages are quoted; they may not answer it."
NO_FACT = "the model found that none of the numbered sentences answers"
REFUSED_BY_MODEL = "The model declined this request: it seems to ask for harm or for secrets."
CLOSE_COSINE = 0.35
MAX_CLOSE = 2
MAX_TECHNIQUES = 5
MIN_TECHNIQUE_SCORE = 0.40  # chosen on the development events, see docs/measurements.md
MAX_STEPS = 5
MAX_CHECKS = 4

OnText = Callable[[str], None]


class Writer(Protocol):
    """What writes: the engine, or what stands before it."""

    @property
    def pid(self) -> int | None:
        """Process id of the model process."""

    def generate(self, request: GenerateRequest, on_text: OnText | None = None) -> Completion:
        """One completion; `on_text` receives the deltas."""


@dataclass(frozen=True)
class Parts:
    """Everything a copilot is made of; the caller opens and closes them."""

    engine: Writer
    retriever: Retriever
    selector: EvidenceSelector
    catalogue: Catalogue
    model: ModelConfig
    box: BoxConfig
    lineage: Lineage
    gate: Gate
    lane: str = "base"
    """The engine's lane that writes: the base, or one adapter."""
    may_decline: bool = False
    """Whether what writes was trained to say that no fact answers, or that a question must be refused."""


class Copilot:
    """Answers questions and triages alerts from one box. One call at a time per instance."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def engine_pid(self) -> int | None:
        """Process id of the model process, None while it does not run."""
        return self._parts.engine.pid

    @property
    def parts(self) -> Parts:
        """What it is made of."""
        return self._parts

    def search(
        self,
        query: str,
        top_k: int | None = None,
        narrowed: Filter = Filter(),  # noqa: B008 (frozen)
    ) -> list[Hit]:
        """The best chunks for `query` within `narrowed`.

        Raises: InputError for an empty or oversized query.
        """
        return self._parts.retriever.search(self._checked(query, "query")[0], top_k, narrowed)

    def explain(
        self,
        query: str,
        top_k: int | None = None,
        narrowed: Filter = Filter(),  # noqa: B008 (frozen)
    ) -> dict[str, Any]:
        """The same search with what put each chunk where it is.

        Raises: as `search`.
        """
        return self._parts.retriever.explain(self._checked(query, "query")[0], top_k, narrowed)

    def evidence(self, question: str) -> Evidence:
        """What a prompt about `question` would hold, without calling the model.

        Raises: InputError for an empty or oversized question.
        """
        return self._parts.selector.select(self._checked(question, "question")[0])

    # ------------------------------------------------------------------ ask

    def ask(
        self,
        question: str,
        request_id: str | None = None,
        on_text: OnText | None = None,
        narrowed: Filter = Filter(),  # noqa: B008 (frozen)
    ) -> Answer:
        """Answer from the box's passages, or say that they hold none.

        `on_text` streams the draft in sentences that are bound and checked one by one; the answer may order,
        add and leave out.

        Raises: InputError, EngineError, VerificationError.
        """
        started = time.perf_counter()
        cleaned, findings = self._checked(question, "question")
        gate = self._parts.gate
        refusal = gate.requests.check(cleaned)
        if refusal is not None:
            timings = Timings(total_ms=_ms_since(started))
            return self._refused(refusal.kind, refusal.message, findings, timings, request_id)
        screened = screen_evidence(
            self._parts.selector.select(cleaned, narrowed), gate.detector, gate.policy.clearance
        )
        evidence = screened.evidence
        findings += screened.findings
        retrieve_ms = _ms_since(started)
        threshold = self._parts.selector.threshold
        if not evidence.sentences or evidence.relevance.probability < threshold:
            findings.append(_relevance_finding(evidence, threshold))
            timings = Timings(retrieve_ms=retrieve_ms, total_ms=_ms_since(started))
            return self._unanswered(evidence, screened.suspected, findings, timings, request_id)
        style = self._parts.model.generation.style
        shown = [one.text for one in evidence.sentences]
        mark = gate.mark("\n".join([cleaned, *shown]))
        most = self._parts.model.generation.max_sentences
        prompt = prompts.answer_prompt(cleaned, shown, style, most, self._parts.may_decline, mark)
        draft = self._draft(evidence, cleaned, mark, on_text) if on_text else None
        completion = self._generate(prompt, self._parts.model.generation.max_tokens_answer, draft)
        timings = _timings(started, retrieve_ms, completion)
        declined = prompts.declined(completion.text)
        if declined == prompts.REFUSE:
            return self._refused("model", REFUSED_BY_MODEL, findings, timings, request_id)
        if declined == prompts.NONE:
            findings.append(Finding(code="model_declined", severity="info", message=NO_FACT))
            return self._unanswered(evidence, screened.suspected, findings, timings, request_id)
        drafted = prompts.parse_answer(completion.text, style)
        bound = self._bind(drafted, evidence)
        self._check(bound.citations)
        answer = Answer(
            id=uuid.uuid4().hex,
            request_id=request_id,
            status="answered",
            answer=" ".join(_numbered(claim.text, claim.citations) for claim in bound.claims),
            claims=bound.claims,
            citations=bound.citations,
            identifiers=_identifiers(" ".join(claim.text for claim in bound.claims)),
            tlp=_highest_tlp(bound.citations),
            confidence=round(evidence.relevance.probability, 3),
            findings=[*findings, *bound.findings],
            lineage=self._parts.lineage,
            timings=timings,
        )
        return release_answer(answer, cleaned, gate, self._parts.catalogue, mark)

    def _refused(
        self, kind: str, message: str, findings: list[Finding], timings: Timings, request_id: str | None
    ) -> Answer:
        """Said by the rules before anything is retrieved or generated, or by an adapter."""
        code = f"refused_{kind}"
        return Answer(
            id=uuid.uuid4().hex,
            request_id=request_id,
            status="refused",
            answer=message,
            confidence=1.0,
            findings=[*findings, Finding(code=code, severity="warning", message=message)],
            lineage=self._parts.lineage,
            timings=timings,
        )

    def _draft(self, evidence: Evidence, question: str, mark: str, on_text: OnText) -> AnswerDraft:
        parts = self._parts

        def leaves(sentences: Sequence[str], quotes: Sequence[str]) -> bool:
            return may_leave(sentences, quotes, question, parts.gate, parts.catalogue, mark)

        style, support = parts.model.generation.style, parts.model.grounding.min_support
        return AnswerDraft(style, evidence.sentences, parts.selector.idf, support, leaves, on_text)

    def _bind(self, drafted: Sequence[tuple[int, str]], evidence: Evidence) -> BoundAnswer:
        idf = self._parts.selector.idf({term for _, text in drafted for term in terms(text)})
        generation, grounding = self._parts.model.generation, self._parts.model.grounding
        limits = (grounding.min_support, grounding.companion_share, generation.max_sentences)
        return bind(drafted, evidence.sentences, idf, *limits)

    def _unanswered(
        self,
        evidence: Evidence,
        suspected: list[EvidenceSentence],
        findings: list[Finding],
        timings: Timings,
        request_id: str | None,
    ) -> Answer:
        """No claim is made; the closest passages are shown, because the reader may know better."""
        shown = [*evidence.sentences, *suspected]
        near = [one for one in shown if one.features[0] >= CLOSE_COSINE][:MAX_CLOSE]
        closest = [cite(n, sentence) for n, sentence in enumerate(near, start=1)]
        self._check(closest)
        return Answer(
            id=uuid.uuid4().hex,
            request_id=request_id,
            status="insufficient_evidence",
            answer=f"{NOTHING_FOUND} {CLOSEST if closest else ''}".strip(),
            citations=closest,
            tlp=_highest_tlp(closest),
            confidence=round(1.0 - evidence.relevance.probability, 3),
            findings=findings,
            lineage=self._parts.lineage,
            timings=timings,
        )

    # --------------------------------------------------------------- triage

    def triage(
        self,
        event: Mapping[str, object],
        request_id: str | None = None,
        on_text: OnText | None = None,
        narrowed: Filter = Filter(),  # noqa: B008 (frozen)
    ) -> Triage:
        """Judge one alert: observables and techniques by code, a summary by the model, checked by code.

        `on_text` receives the summary once it has been checked.

        Raises: EngineError, VerificationError.
        """
        started = time.perf_counter()
        alert = read_alert(event)
        seen = observables(alert)
        gate = self._parts.gate
        screened = screen_fields({"title": alert.title, **alert.fields}, gate.detector)
        text, findings = clean_text(describe(alert), "alert")
        findings += screened.findings
        visible = alert.model_copy(update={"title": screened.fields["title"], "fields": screened.fields})
        told = clean_text(describe(visible), "alert")[0] if screened.suspected else text
        unspoken = alert.model_copy(
            update={"title": screened.model_fields["title"], "fields": screened.model_fields}
        )
        seen_by_model = clean_text(describe(unspoken), "alert")[0]
        candidates = self._candidates(alert, text, narrowed)
        bare = {name: value for name, value in alert.fields.items() if screened.model_fields[name] == value}
        if bare != alert.fields:  # what orders and prose displaced is looked for without them
            candidates += self._candidates(visible.model_copy(update={"fields": bare}), told, narrowed)
        techniques = self._match(alert, text, candidates)
        retrieve_ms = _ms_since(started)
        mark = gate.mark(seen_by_model)
        prompt = prompts.triage_prompt(
            seen_by_model,
            [(one.id, one.name) for one in techniques],
            mark,
            gate.datamark(seen_by_model, mark),
        )
        completion = self._generate(prompt, self._parts.model.generation.max_tokens_summary, None)
        chosen, drafted_summary = prompts.parse_triage(completion.text)
        # With an order to a model in the alert, no model speaks for it.
        drafted_summary = "" if screened.suspected else drafted_summary
        summary = decision.summary(seen_by_model, drafted_summary, told, findings)
        disputed = decision.report_conflict(techniques, alert.technique_ids, chosen, findings)
        proposed = decision.verdict(techniques, alert.severity, screened.suspected)
        outside = [one.sentence for one in techniques if one.sentence is not None]
        verdict, reason = decision.held(*proposed, outside, screened.suspected, disputed)
        advice = self._advice(techniques)
        cited = CitationList()
        matches = [decision.technique_match(one, cited) for one in techniques]
        limits = (gate.detector, gate.policy.clearance)
        first = unsuspected(decision.first_steps(advice)[:MAX_STEPS], *limits)
        benign = unsuspected(decision.benign_checks(advice)[:MAX_CHECKS], *limits)
        steps = [decision.step(one, cited) for one in first]
        checks = [decision.step(one, cited) for one in benign]
        self._check(cited.citations)
        triage = Triage(
            id=uuid.uuid4().hex,
            request_id=request_id,
            alert_id=alert.id,
            verdict=verdict,
            severity=decision.severity(techniques, alert.severity, bool(screened.suspected)),
            confidence=round(techniques[0].score, 3) if techniques else 0.0,
            abstained=verdict == "needs_review",
            abstain_reason=reason,
            summary=summary,
            techniques=matches,
            observables=seen,
            recommended_steps=steps,
            false_positive_checks=checks,
            citations=cited.citations,
            findings=findings,
            lineage=self._parts.lineage,
            timings=_timings(started, retrieve_ms, completion),
        )
        facts = decision.facts(told)
        released = release_triage(triage, told, facts, gate, self._parts.catalogue, mark)
        if on_text is not None:
            on_text(released.summary)
        return released

    def techniques(self, alert: Alert, text: str) -> list[TechniqueEvidence]:
        """What a triage of `alert`, described as `text`, would offer the model."""
        return self._match(alert, text, self._candidates(alert, text, Filter()))

    def _candidates(self, alert: Alert, text: str, narrowed: Filter) -> list[EvidenceSentence]:
        wanted = clean_text(search_text(alert), "alert")[0] or text
        return self._parts.selector.select(wanted, narrowed).candidates

    def _match(self, alert: Alert, text: str, candidates: list[EvidenceSentence]) -> list[TechniqueEvidence]:
        """Techniques with evidence; a sentence that looks like an order to a model carries none."""
        rarity = self._parts.selector.rarity(candidates)
        values = described_values(text)
        gate = self._parts.gate
        while True:
            ranked = match_techniques(values, alert.technique_ids, candidates, rarity, self._parts.catalogue)
            found = [one for one in ranked if one.score >= MIN_TECHNIQUE_SCORE][:MAX_TECHNIQUES]
            strongest = max(ranked, key=lambda one: one.overlap, default=None)
            if found and strongest is not None and strongest not in found:  # nothing crowds it out
                found[-1] = strongest
            carrying = [one.sentence for one in found if one.sentence is not None]
            kept = {one.sha256 for one in unsuspected(carrying, gate.detector, gate.policy.clearance)}
            refused = {one.sha256 for one in carrying} - kept
            if not refused:
                return found
            candidates = [one for one in candidates if one.sha256 not in refused]

    def _advice(self, techniques: list[TechniqueEvidence]) -> list[EvidenceSentence]:
        """Sentences of the documents that carry the strongest techniques; no technique, no advice."""
        carrying = dict.fromkeys(
            one.sentence.hit.chunk.record_id for one in techniques if one.sentence is not None
        )
        return [
            one for record_id in list(carrying)[:2] for one in self._parts.selector.sentences_of(record_id)
        ]

    # --------------------------------------------------------------- shared

    def _checked(self, text: str, what: str) -> tuple[str, list[Finding]]:
        limit = self._parts.box.limits.max_question_chars
        if len(text) > limit:
            raise InputError(f"the {what} has {len(text)} characters, the limit is {limit}; shorten it")
        cleaned, findings = clean_text(text, what)
        if not cleaned.strip():
            raise InputError(f"the {what} is empty; give at least one word")
        return cleaned.strip(), findings

    def _check(self, citations: Sequence[Citation]) -> None:
        """Compare every quote with its record; nothing leaves with one that differs."""
        for citation in citations:
            check_citation(citation, self._parts.retriever.record(citation.record_id))

    def _generate(self, prompt: prompts.Prompt, max_tokens: int, on_text: OnText | None) -> Completion:
        generation = self._parts.model.generation
        request = GenerateRequest(
            prompt=prompt.segments,
            grammar=prompt.grammar,
            lane=self._parts.lane,
            max_tokens=max_tokens,
            temperature=generation.temperature,
            seed=generation.seed,
            deadline_s=generation.deadline_s,
        )
        return self._parts.engine.generate(request, on_text)


def _relevance_finding(evidence: Evidence, threshold: float) -> Finding:
    missing = ", ".join(one.value for one in evidence.query.missing_identifiers)
    message = (
        f"the index does not hold {missing}"
        if missing
        else f"the best passages answer with {evidence.relevance.probability:.2f}, below {threshold:.2f}"
    )
    return Finding(code="insufficient_evidence", severity="info", message=message)


def _identifiers(text: str) -> Identifiers:
    return Identifiers(
        technique_ids=identifiers.values(text, "technique"),
        cve_ids=identifiers.values(text, "cve"),
        event_ids=identifiers.values(text, "event"),
    )


def _numbered(text: str, numbers: Sequence[int]) -> str:
    return text + "".join(f" [{n}]" for n in numbers)


def _highest_tlp(citations: Sequence[Citation]) -> Tlp:
    return max((citation.tlp for citation in citations), key=TLP_ORDER.index, default="clear")


def _timings(started: float, retrieve_ms: float, completion: Completion) -> Timings:
    return Timings(
        retrieve_ms=round(retrieve_ms, 1),
        ttft_ms=round(retrieve_ms + completion.ttft_ms, 1),
        total_ms=round(_ms_since(started), 1),
        prompt_tokens=completion.prompt_tokens,
        cached_tokens=completion.cached_tokens,
        completion_tokens=completion.completion_tokens,
    )


def _ms_since(started: float) -> float:
    return (time.perf_counter() - started) * 1000
