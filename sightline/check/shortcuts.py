"""Shortcuts: text-only cues that separate chosen from rejected answers, each as an AUC with an interval.

Surface marks such as length alone, then two text classifiers, cross-validated so that no cluster is in both parts. Each
is measured twice: over all answers, and within pairs, since a loss compares the two answers of one pair and learns such
a cue before it learns the image.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GroupKFold

from sightline.check.findings import GIVE_AWAY, CheckConfig, CheckLine, Verdict
from sightline.check.scan import DrawnRows
from sightline.records import Estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bootstrap:
    """The cluster of each pair, and the number and seed of cluster resamples."""

    clusters: Sequence[int]
    resamples: int
    seed: int

    def weights(self) -> Iterator[Floats]:
        """Yield how often each pair occurs in a resample."""
        kinds, members = np.unique(np.array(self.clusters, dtype=np.uint64), return_inverse=True)
        rng = np.random.default_rng([self.seed, 1])
        for _ in range(self.resamples if len(kinds) > 1 else 0):
            drawn = np.bincount(rng.integers(len(kinds), size=len(kinds)), minlength=len(kinds))
            yield drawn[members].astype(np.float64)


def mean_estimate(values: Floats, bootstrap: Bootstrap, unscored: int = 0, *, is_share: bool = True) -> Estimate:
    """Return the mean over pairs with its 95 % interval; None without pairs, no interval for a single cluster."""
    estimate = _estimate(lambda weights: float(weights @ values / weights.sum()), len(values), bootstrap, unscored)
    return _with_exact_bound(estimate, bootstrap) if is_share else estimate


def auc_estimate(chosen: Floats, rejected: Floats, bootstrap: Bootstrap) -> Estimate:
    """Return the probability that a score is higher for a chosen than for a rejected answer of any pair; ties count
    half.

    0.5 means no information, 1 perfect separation of chosen from rejected answers, 0 the reverse.
    """
    scores = np.concatenate([chosen, rejected])
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.nan) != 0)  # NaN differs from every number
    of_pair, is_chosen = order % max(1, len(chosen)), order < len(chosen)

    def auc(weights: Floats) -> float:
        ranked = weights[of_pair]
        above, below = (np.add.reduceat(ranked * side, starts) for side in (is_chosen, ~is_chosen))
        under = np.cumsum(below) - below / 2
        return float(above @ under / weights.sum() ** 2)

    return _with_exact_bound(_estimate(auc, len(chosen), bootstrap, 0), bootstrap)


def _with_exact_bound(estimate: Estimate, bootstrap: Bootstrap) -> Estimate:
    """Replace the interval of a share of exactly 0 or 1, which has no spread, by the exact binomial bound over
    clusters.
    """
    if estimate.ci95 not in ((0.0, 0.0), (1.0, 1.0)):
        return estimate
    bound = float(1 - 0.025 ** (1 / len(set(bootstrap.clusters))))
    return estimate.model_copy(
        update={"ci95": (0.0, bound) if estimate.value == 0 else (1 - bound, 1.0), "stderr": None}
    )


def _estimate(of: Callable[[Floats], float], count: int, bootstrap: Bootstrap, unscored: int) -> Estimate:
    if not count:
        return Estimate(value=None, stderr=None, ci95=None, n=0, unscored=unscored)
    value = of(np.ones(count))
    draws = [of(weights) for weights in bootstrap.weights()]
    if not draws:
        return Estimate(value=value, stderr=None, ci95=None, n=count, unscored=unscored)
    low, high = (float(bound) for bound in np.percentile(draws, [2.5, 97.5]))
    return Estimate(value=value, stderr=float(np.std(draws, ddof=1)), ci95=(low, high), n=count, unscored=unscored)


_FEATURES = 2**18  # hashed words and pairs of words
_END = re.compile(r"[.!?][\"')\]\u201d\u2019]*$")
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
_MARKUP = re.compile(r"[*#`|]|^\s*[-\u2022]\s", re.MULTILINE)
_HEDGE = re.compile(r"\b(?:appears?|seems?|might|may|possibly|likely|probably|perhaps|suggest\w*)\b", re.IGNORECASE)

MARKS: dict[str, Callable[[str], float]] = {
    "words": lambda text: len(text.split()),
    "characters": len,
    "sentences": lambda text: len(_SENTENCE.findall(text)),
    "capital letters": lambda text: sum(map(str.isupper, text)) / max(1, len(text)),
    "digits": lambda text: sum(map(str.isdigit, text)) / max(1, len(text)),
    "commas": lambda text: text.count(",") / max(1, len(text)),
    "line breaks": lambda text: text.strip().count("\n"),
    "markup": lambda text: len(_MARKUP.findall(text)),
    "hedging words": lambda text: len(_HEDGE.findall(text)) / max(1, len(text.split())),
    "full stop at the end": lambda text: float(bool(_END.search(text.rstrip()))),
}


def measure_shortcuts(
    sample: DrawnRows, config: CheckConfig, seed: int, tokens: Callable[[Sequence[str]], list[int]] | None = None
) -> tuple[list[CheckLine], dict[str, str]]:
    """Return a line for each mark and classifier, and what was skipped; `tokens` counts a model's tokens."""
    if not sample.clusters:
        return [], {"give-aways": "no pair was drawn"}
    bootstrap = Bootstrap(sample.clusters, config.resamples, seed)
    lines = []
    for name, mark in MARKS.items():
        chosen, rejected = (np.array([mark(text) for text in side], float) for side in (sample.chosen, sample.rejected))
        lines.append(_line(name, chosen, rejected, bootstrap, config))
    if tokens is not None:
        chosen, rejected = (np.array(tokens(side), float) for side in (sample.chosen, sample.rejected))
        lines.insert(0, _line("tokens", chosen, rejected, bootstrap, config))
    folds = min(config.folds, len(set(sample.clusters)))
    if folds < 2:
        return lines, {"give-aways by words": "cross-validation needs two clusters"}
    for name, text in (("bag of words", str), ("first word", _first_word)):
        chosen, rejected = _out_of_fold(sample, text, folds, seed)
        lines.append(_line(name, chosen, rejected, bootstrap, config))
    return lines, {}


def strength_verdict(strength: float, config: CheckConfig) -> Verdict:
    """Return the verdict for a certain AUC or share."""
    return "bad" if strength > config.bad else "look" if strength > config.look else "ok"


def _line(name: str, chosen: Floats, rejected: Floats, bootstrap: Bootstrap, config: CheckConfig) -> CheckLine:
    auc = auc_estimate(chosen, rejected, bootstrap)
    within = mean_estimate((chosen > rejected) + 0.5 * (chosen == rejected), bootstrap)
    both_ways = name in (*MARKS, "tokens")
    return CheckLine(
        check=f"{GIVE_AWAY}{name}",
        title=f"{name} alone",
        verdict=strength_verdict(
            max(_certain_strength(auc, both_ways=both_ways), _certain_strength(within, both_ways=both_ways)), config
        ),
        value=auc,
        within=within,
        n=auc.n,
    )


def _certain_strength(estimate: Estimate, *, both_ways: bool) -> float:
    """Return the interval's end nearer to 0.5; for marks also below 0.5, for classifiers above it only."""
    if estimate.ci95 is None:
        return 0.5
    low, high = estimate.ci95
    return max(low, 1 - high) if both_ways else low


def _out_of_fold(sample: DrawnRows, text: Callable[[str], str], folds: int, seed: int) -> tuple[Floats, Floats]:
    """Score all answers with classifiers fitted to other clusters."""
    vectorizer = HashingVectorizer(
        n_features=_FEATURES, ngram_range=(1, 2), alternate_sign=False, dtype=np.float32, token_pattern=r"(?u)\b\w+\b"
    )
    sides = [vectorizer.transform(map(text, side)) for side in (sample.chosen, sample.rejected)]
    features = csr_array(vstack(sides))
    count = len(sample.clusters)
    labels = np.repeat([1, 0], count)
    groups = np.tile(np.array(sample.clusters, dtype=np.uint64), 2)
    scores = np.zeros(2 * count)
    for fitted, held in GroupKFold(folds).split(labels, labels, groups):
        classifier = SGDClassifier(loss="log_loss", alpha=1e-5, average=True, random_state=seed, max_iter=20, tol=None)
        classifier.fit(features[fitted], labels[fitted])
        scores[held] = classifier.decision_function(features[held])
    return scores[:count], scores[count:]


def _first_word(text: str) -> str:
    return " ".join(text.split()[:1])
