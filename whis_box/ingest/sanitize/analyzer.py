"""presidio's analyzer without a downloaded model, with our recognizers, secrets, people and indicators.

Invariant: nothing is fetched; ATT&CK ids, CVEs, hashes and other indicators are never marked as people.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace

import tldextract
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import NoOpNlpEngine
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    EsNifRecognizer,
    IbanRecognizer,
    ItFiscalCodeRecognizer,
    NhsRecognizer,
    PlPeselRecognizer,
    UsSsnRecognizer,
)

from whis_box.ingest.sanitize.people import people_finder
from whis_box.ingest.sanitize.policy import PolicyConfig
from whis_box.ingest.sanitize.recognizers import recognizers
from whis_box.ingest.sanitize.secrets import find_secrets
from whis_box.ingest.sanitize.spans import Span, resolve, without

NATIONAL_IDS = {"US_SSN", "UK_NHS", "ES_NIF", "IT_FISCAL_CODE", "PL_PESEL"}
# These win over an indicator they overlap: a secret in a command line is still a secret.
UNPROTECTED = {"SECRET", "ACCOUNT", "HOST", "INTERNAL_IP", "EMAIL_ADDRESS", "SID"}
INDICATORS = re.compile(
    r"\b(?:T[AS]?\d{4}(?:\.\d{3})?|CVE-\d{4}-\d{4,7}|CWE-\d{1,5}|KB\d{6,8}|(?:G|S|M|C|DET|AN|DC)\d{4})\b"
    r"|\b[0-9a-fA-F]{32}\b|\b[0-9a-fA-F]{40}\b|\b[0-9a-fA-F]{64}\b"
    r"|\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"
    r"|\bhttps?://\S+|\bhxxps?://\S+|\b(?:\d{1,3}\.){3}\d{1,3}\b|\b(?:[0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}\b"
    r"|\b\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}\S*|\b0x[0-9a-fA-F]+\b"
)
# What the people model says counts for less than any form or field, and for more than a bare row of digits.
PEOPLE_WEIGHT = 0.72
# The library would fetch the public suffix list on first use; the extra suffixes are of inner networks.
_extract = tldextract.TLDExtract(
    suffix_list_urls=(), cache_dir=None, extra_suffixes=("local", "lan", "corp", "internal", "home")
)
tldextract.extract = _extract  # type: ignore[assignment]
logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)


class Analyzer:
    """Finds what a policy asks for. Loads in about a second; not for several threads at once."""

    def __init__(self, policy: PolicyConfig) -> None:
        self._policy = policy
        self._kept = [re.compile(one, re.IGNORECASE) for one in policy.kept_values]
        engine = NoOpNlpEngine([{"lang_code": "en", "model_name": "no_op"}])
        engine.load()
        registry = RecognizerRegistry(supported_languages=["en"])
        checked = (CreditCardRecognizer, IbanRecognizer, UsSsnRecognizer, NhsRecognizer, EsNifRecognizer)
        for kind in (*checked, ItFiscalCodeRecognizer, PlPeselRecognizer):
            registry.add_recognizer(kind(supported_language="en"))
        for one in recognizers(policy):
            registry.add_recognizer(one)
        self._entities = sorted({name for one in registry.recognizers for name in one.supported_entities})
        self._people = people_finder(policy)
        self._engine = AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])

    def find(self, text: str) -> list[Span]:
        """Resolved spans that the policy acts on, in text order."""
        found = self._engine.analyze(
            text, language="en", entities=self._entities, score_threshold=self._policy.min_score
        )
        spans = [
            Span(
                "NATIONAL_ID" if one.entity_type in NATIONAL_IDS else one.entity_type,
                one.start,
                one.end,
                one.score,
                (one.recognition_metadata or {}).get("recognizer_name", "presidio"),
            )
            for one in found
        ]
        spans += [replace(one, score=one.score * PEOPLE_WEIGHT) for one in self._people(text)]
        protected = [match.span() for match in INDICATORS.finditer(text)]
        strong = [one for one in spans if one.entity_type in UNPROTECTED]
        weak = without((one for one in spans if one.entity_type not in UNPROTECTED), protected)
        found_spans = [*strong, *weak, *find_secrets(text)]
        acted = [one for one in found_spans if not self._is_kept(text[one.start : one.end])]
        return resolve(one for one in acted if self._policy.action(one.entity_type) != "keep")

    def _is_kept(self, value: str) -> bool:
        return any(pattern.fullmatch(value) for pattern in self._kept)
