"""Give-aways: what tells chosen from rejected answers without the picture, each as an AUC with an interval.

Lengths and other marks on the surface by themselves, then two classifiers of words that never saw a picture,
cross-validated so that no cluster is in both parts. Each is asked twice: over all answers, and within pairs, since a
loss compares the two answers of one pair and finds such a mark sooner than what is in the picture.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csr_array, vstack
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import GroupKFold

from sightline.pairs.check.config import CheckConfig
from sightline.pairs.check.findings import GIVE_AWAY, Line, Verdict
from sightline.pairs.check.gather import Sample
from sightline.pairs.check.intervals import Bootstrap, Floats, auc_estimate, mean_estimate
from sightline.records import Estimate

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
    sample: Sample, config: CheckConfig, seed: int, tokens: Callable[[Sequence[str]], list[int]] | None = None
) -> tuple[list[Line], dict[str, str]]:
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


def _line(name: str, chosen: Floats, rejected: Floats, bootstrap: Bootstrap, config: CheckConfig) -> Line:
    auc = auc_estimate(chosen, rejected, bootstrap)
    within = mean_estimate((chosen > rejected) + 0.5 * (chosen == rejected), bootstrap)
    both_ways = name in (*MARKS, "tokens")
    return Line(
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


def _out_of_fold(sample: Sample, text: Callable[[str], str], folds: int, seed: int) -> tuple[Floats, Floats]:
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
