"""Give-aways: what tells chosen from rejected answers without the picture, each as an AUC with an interval.

Lengths and other marks on the surface by themselves, then two classifiers of words that never saw a picture,
cross-validated so that no cluster is in both parts. Each is asked twice: over all answers, and within pairs, since a
loss compares the two answers of one pair and finds such a mark sooner than what is in the picture.
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
    """The cluster of each pair, and how often and by which seed clusters are drawn."""

    clusters: Sequence[int]
    resamples: int
    seed: int

    def weights(self) -> Iterator[Floats]:
        """How often each pair occurs in a resample."""
        kinds, members = np.unique(np.array(self.clusters, dtype=np.uint64), return_inverse=True)
        rng = np.random.default_rng([self.seed, 1])
        for _ in range(self.resamples if len(kinds) > 1 else 0):
            drawn = np.bincount(rng.integers(len(kinds), size=len(kinds)), minlength=len(kinds))
            yield drawn[members].astype(np.float64)


def mean_estimate(values: Floats, bootstrap: Bootstrap, unscored: int = 0, *, is_share: bool = True) -> Estimate:
    """The mean over pairs with its 95 % interval; None where there are none, without interval for one cluster."""
    made = _estimate(lambda weights: float(weights @ values / weights.sum()), len(values), bootstrap, unscored)
    return _bounded(made, bootstrap) if is_share else made


def auc_estimate(chosen: Floats, rejected: Floats, bootstrap: Bootstrap) -> Estimate:
    """The probability that a score is higher for a chosen answer than for a rejected one of any pair; ties count half.

    0.5 means that the score knows nothing, 1 that it tells all chosen answers from all rejected ones, 0 the reverse.
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

    return _bounded(_estimate(auc, len(chosen), bootstrap, 0), bootstrap)


def _bounded(made: Estimate, bootstrap: Bootstrap) -> Estimate:
    """A share of exactly 0 or 1 has no spread to resample: the exact binomial bound, with clusters as trials."""
    if made.ci95 not in ((0.0, 0.0), (1.0, 1.0)):
        return made
    bound = float(1 - 0.025 ** (1 / len(set(bootstrap.clusters))))
    return made.model_copy(update={"ci95": (0.0, bound) if made.value == 0 else (1 - bound, 1.0), "stderr": None})


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


def measure_giveaways(
    sample: DrawnRows, config: CheckConfig, seed: int, tokens: Callable[[Sequence[str]], list[int]] | None = None
) -> tuple[list[CheckLine], dict[str, str]]:
    """A line for each mark and classifier, and what was skipped; `tokens` counts those of a model."""
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


def verdict_of(strength: float, config: CheckConfig) -> Verdict:
    """The word for an AUC or a share of which at least so much is sure."""
    return "bad" if strength > config.bad else "look" if strength > config.look else "ok"


def _line(name: str, chosen: Floats, rejected: Floats, bootstrap: Bootstrap, config: CheckConfig) -> CheckLine:
    auc = auc_estimate(chosen, rejected, bootstrap)
    within = mean_estimate((chosen > rejected) + 0.5 * (chosen == rejected), bootstrap)
    both_ways = name in (*MARKS, "tokens")
    return CheckLine(
        check=f"{GIVE_AWAY}{name}",
        title=f"{name} alone",
        verdict=verdict_of(max(_sure(auc, both_ways=both_ways), _sure(within, both_ways=both_ways)), config),
        value=auc,
        within=within,
        n=auc.n,
    )


def _sure(estimate: Estimate, *, both_ways: bool) -> float:
    """The end of the interval that is nearer to 0.5; a mark gives away below 0.5 as well, a classifier does not."""
    if estimate.ci95 is None:
        return 0.5
    low, high = estimate.ci95
    return max(low, 1 - high) if both_ways else low


def _out_of_fold(sample: DrawnRows, text: Callable[[str], str], folds: int, seed: int) -> tuple[Floats, Floats]:
    """Scores of all answers by classifiers that were fitted to other clusters."""
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
