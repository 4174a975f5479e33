"""Our metrics equal the reference libraries' values to 1e-6 on generated texts, rankings and labels."""

from __future__ import annotations

import math
import string

import numpy as np
import pytest
import pytrec_eval
import sacrebleu
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from scipy.stats import binomtest, bootstrap
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from whis_box.evaluation.metrics import classes, intervals, overlap, ranking, reliability

CLOSE = 1e-6
WORDS = [
    "Event",
    "4625,",
    "is",
    "a",
    "failed",
    "logon.",
    "T1059.001",
    "10.0.0.5",
    "the",
    "(lsass.exe)",
    "50%",
    "&amp;",
]
sentences = st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)
any_text = st.text(alphabet=string.ascii_letters + string.digits + string.punctuation + " \n", max_size=60)
texts = st.one_of(sentences, any_text)
ids = st.lists(st.sampled_from([f"d{n}" for n in range(12)]), max_size=10, unique=True)
label_sets = st.lists(st.frozensets(st.sampled_from("abcde"), max_size=3), min_size=2, max_size=12)
slow = settings(max_examples=100, deadline=None)


@slow
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_bleu_is_sacrebleus(pairs: list[tuple[str, str]]) -> None:
    mine, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    reference = sacrebleu.corpus_bleu(mine, [theirs]).score / 100
    assert overlap.corpus_bleu(mine, theirs) == pytest.approx(reference, abs=CLOSE)
    reference = sacrebleu.sentence_bleu(mine[0], [theirs[0]]).score / 100
    assert overlap.sentence_bleu(mine[0], theirs[0]) == pytest.approx(reference, abs=CLOSE)


@slow
@given(texts, texts)
def test_rouge_l_is_rouge_scores(mine: str, theirs: str) -> None:
    plain = rouge_scorer.RougeScorer(["rougeL"])
    assert overlap.rouge_l(mine, theirs) == pytest.approx(
        plain.score(theirs, mine)["rougeL"].fmeasure, abs=CLOSE
    )
    from nltk.stem import PorterStemmer

    stemmed = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True).score(theirs, mine)["rougeL"].fmeasure
    assert overlap.rouge_l(mine, theirs, PorterStemmer().stem) == pytest.approx(stemmed, abs=CLOSE)


@slow
@given(sentences, sentences)
def test_token_f1_is_rouge_1_of_normalized_words(mine: str, theirs: str) -> None:
    one, other = overlap.normalized(mine), overlap.normalized(theirs)
    if one or other:  # rouge-score gives 0 to two empty texts, SQuAD gives 1
        reference = rouge_scorer.RougeScorer(["rouge1"]).score(other, one)["rouge1"].fmeasure
        assert overlap.token_f1(mine, theirs) == pytest.approx(reference, abs=CLOSE)


def test_exact_match_and_token_f1_follow_squads_form() -> None:
    assert overlap.exact_match("The event 4625.", "event 4625") == 1.0
    assert overlap.exact_match("event 4624", "event 4625") == 0.0
    assert overlap.token_f1("", "") == 1.0 and overlap.token_f1("", "event") == 0.0
    assert overlap.token_f1("a failed logon", "the logon failed twice") == pytest.approx(0.8)


@slow
@given(any_text, any_text)
@example("kitten", "sitting")
@example("", "abc")
def test_string_similarity_counts_edits_as_the_table_of_wagner_and_fischer_does(
    mine: str, theirs: str
) -> None:
    row = list(range(len(theirs) + 1))
    for i, left in enumerate(mine, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(theirs, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    longest = max(len(mine), len(theirs))
    expected = 1 - row[-1] / longest if longest else 1.0
    assert overlap.string_similarity(mine, theirs) == pytest.approx(expected, abs=CLOSE)


@slow
@given(ids, st.dictionaries(st.sampled_from([f"d{n}" for n in range(12)]), st.integers(1, 3), min_size=1))
def test_ranking_metrics_are_trec_evals(ranked: list[str], gains: dict[str, int]) -> None:
    measures = {"recip_rank", "map", "P.5", "recall.5", "ndcg_cut.5", "success.5"}
    evaluator = pytrec_eval.RelevanceEvaluator({"q": gains}, measures)
    run = {one: float(len(ranked) - place) for place, one in enumerate(ranked)}
    theirs = evaluator.evaluate({"q": run or {"nothing": 0.0}})["q"]
    mine = {
        "recip_rank": ranking.reciprocal_rank(ranked, gains),
        "map": ranking.average_precision(ranked, gains),
        "P_5": ranking.precision_at_k(ranked, gains, 5),
        "recall_5": ranking.recall_at_k(ranked, gains, 5),
        "ndcg_cut_5": ranking.ndcg_at_k(ranked, dict(gains), 5),
        "success_5": ranking.hit_at_k(ranked, gains, 5),
    }
    assert mine == pytest.approx({name: theirs[name] for name in mine}, abs=CLOSE)


def test_a_repeated_id_counts_once_and_nothing_relevant_is_zero() -> None:
    assert ranking.reciprocal_rank(["a", "a", "b"], {"b"}) == 0.5
    assert ranking.average_precision(["a"], set()) == ranking.recall_at_k(["a"], set(), 5) == 0.0
    assert ranking.ndcg_at_k(["a"], {}, 5) == ranking.context_precision([False, False]) == 0.0


@slow
@given(label_sets, st.data())
def test_label_metrics_are_scikit_learns(expected: list[frozenset[str]], data: st.DataObject) -> None:
    n = len(expected)
    predicted = data.draw(
        st.lists(st.frozensets(st.sampled_from("abcde"), max_size=3), min_size=n, max_size=n)
    )
    labels = sorted(set().union(*expected, *predicted))
    if not labels:
        assert classes.macro_f1(expected, predicted) == 0.0
        return
    shown = [*labels, "never"]  # with one column scikit-learn would take the labels for classes
    a = np.array([[one in row for one in shown] for row in expected])
    b = np.array([[one in row for one in shown] for row in predicted])
    columns = list(range(len(labels)))
    p, r, f, _ = sk.precision_recall_fscore_support(a, b, average="micro", zero_division=0)
    rates = classes.micro(expected, predicted)
    assert (rates.precision, rates.recall, rates.f1) == pytest.approx((p, r, f), abs=CLOSE)
    assert classes.macro_f1(expected, predicted) == pytest.approx(
        sk.f1_score(a, b, labels=columns, average="macro", zero_division=0), abs=CLOSE
    )


@slow
@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from("xyz")), min_size=1, max_size=30))
def test_class_metrics_are_scikit_learns(pairs: list[tuple[str, str]]) -> None:
    expected, predicted = [a for a, _ in pairs], [b for _, b in pairs]
    labels, table = classes.confusion(expected, predicted)
    if len(labels) > 1:  # scikit-learn warns about a single label
        assert table == sk.confusion_matrix(expected, predicted, labels=labels).tolist()
    assert classes.accuracy(expected, predicted) == pytest.approx(sk.accuracy_score(expected, predicted))
    assert classes.macro_f1_single(expected, predicted) == pytest.approx(
        sk.f1_score(expected, predicted, average="macro", zero_division=0), abs=CLOSE
    )


@slow
@given(st.lists(st.tuples(st.floats(0.001, 1), st.booleans()), min_size=1, max_size=60))
def test_calibration_is_scikit_learns(pairs: list[tuple[float, bool]]) -> None:
    confidences, right = [a for a, _ in pairs], [b for _, b in pairs]
    truth = np.array(right, dtype=int)
    assert reliability.brier(confidences, right) == pytest.approx(
        float(np.mean((np.array(confidences) - truth) ** 2)), abs=CLOSE
    )
    if len(set(right)) == 2:
        assert reliability.brier(confidences, right) == pytest.approx(
            sk.brier_score_loss(truth, confidences), abs=CLOSE
        )
        share, mean = calibration_curve(truth, confidences, n_bins=10)
        found = reliability.bins(confidences, right)
        assert [one.accuracy for one in found] == pytest.approx(share.tolist(), abs=CLOSE)
        assert [one.confidence for one in found] == pytest.approx(mean.tolist(), abs=CLOSE)
        weights = np.array([one.n for one in found]) / len(pairs)
        assert reliability.expected_calibration_error(confidences, right) == pytest.approx(
            float(np.sum(weights * np.abs(share - mean))), abs=CLOSE
        )


@slow
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    theirs = binomtest(*counts).proportion_ci(0.95, "wilson")
    mine = intervals.wilson(*counts)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=CLOSE)
    assert intervals.wilson(0, 0) == intervals.Interval(0.0, 1.0)


def test_the_bootstrap_agrees_with_scipys_and_repeats_itself() -> None:
    values = np.random.default_rng(3).random(120)
    theirs = bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    mine = intervals.mean_interval(values.tolist())
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    assert mine == intervals.mean_interval(values.tolist())


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    random = np.random.default_rng(1)
    a = random.random(200)
    better = intervals.paired_bootstrap(a.tolist(), (a + 0.02 + 0.01 * random.random(200)).tolist())
    assert better.excludes_zero and better.wins == 200 and better.p < 0.01
    same = intervals.paired_bootstrap(a.tolist(), a.tolist())
    assert not same.excludes_zero and same.ties == 200 and same.p == 1.0
    noise = intervals.paired_bootstrap(a.tolist(), random.permutation(a).tolist())
    assert not noise.excludes_zero and math.isclose(noise.difference, 0.0, abs_tol=0.1)
    assert intervals.paired_bootstrap([], []).p == 1.0
