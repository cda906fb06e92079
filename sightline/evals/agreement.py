"""Inter-rater agreement beyond chance: Cohen's kappa, Fleiss' kappa and Krippendorff's alpha, with intervals.

Every figure is a function of sums over units (items, words, graded answers), so that clusters of units are resampled
as in `statistics`. The module reads a labels directory and writes nothing; `builders.from_labels` builds the pairs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sightline.data.labels import Ratings, read_items, read_ratings
from sightline.data.texts import spans_to_words, word_spans
from sightline.errors import InputError
from sightline.evals.cluster_sums import FloatArray
from sightline.evals.statistics import RESAMPLES, estimate_figure
from sightline.records import AnswerAnnotation, Estimate, LabelItem, Rating

Codes = NDArray[np.int64]  # [unit, rater], -1 where a rating is missing
VERDICTS = ("first", "second", "tie")
MISSING = -1


@dataclass(frozen=True)
class Agreement:
    """One measure of agreement between `raters` on one question; `observed` is the share of agreement uncorrected.

    `estimate.n` counts the units that at least two of these raters rated.
    """

    about: str
    measure: str
    raters: tuple[str, ...]
    observed: float | None
    estimate: Estimate


@dataclass(frozen=True)
class Units:
    """Ratings of the units of one question: codes (indices into `values`), and the cluster of each unit.

    With `is_scale` the values are numbers whose distance counts.
    """

    about: str
    codes: Codes
    clusters: tuple[str, ...]
    values: tuple[float, ...]
    is_scale: bool = False

    @property
    def distances(self) -> FloatArray:
        """[value, value] distances: 0 or 1, or the square of the difference on a scale."""
        values = np.array(self.values)
        apart = values[:, None] - values[None]
        distances: FloatArray = apart**2 if self.is_scale else (apart != 0).astype(np.float64)
        return distances


def measure_agreement(directory: Path, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Agreement]:
    """Agreement in a labels directory: on verdicts, marked words, and the grades of each criterion.

    Raises:
        InputError: the directory holds no labels, or no two raters rated the same item.
    """
    items, ratings = read_items(directory), read_ratings(directory)
    raters = tuple(ratings)
    found = [
        agreement
        for units in _rated_questions(items, ratings)
        for agreement in _estimate_agreements(units, raters, resamples=resamples, seed=seed)
        if agreement.estimate.n
    ]
    if not found:
        raise InputError(
            f"{directory}: no two raters rated the same item (raters: {', '.join(raters)}); have them rate the same"
        )
    return found


def cohen_sums(codes: Codes, count: int) -> FloatArray:
    """[unit, value, value] 1 at the values that the two raters of `codes` [unit, 2] gave; 0 where one is missing."""
    both = (codes != MISSING).all(axis=1)
    table = np.zeros((len(codes), count, count))
    table[np.flatnonzero(both), codes[both, 0], codes[both, 1]] = 1.0
    return table


def cohen_kappa(table: FloatArray, distances: FloatArray) -> FloatArray:
    """Kappa of two raters from their table [..., value, value] (Cohen 1960; weighted, Cohen 1968): 1 - q_o / q_e.

    Distances of 0 and 1 give plain kappa, squared distances quadratically weighted kappa. NaN where the expected
    distance is 0.
    """
    total = table.sum(axis=(-2, -1))
    expected = table.sum(axis=-1)[..., :, None] * table.sum(axis=-2)[..., None, :]
    apart = (distances * table).sum(axis=(-2, -1)) * total
    return _one_minus(apart, (distances * expected).sum(axis=(-2, -1)))


def fleiss_sums(codes: Codes, count: int) -> FloatArray:
    """[unit, 2 + value]: the unit's agreement P_i, 1 for the unit, and its ratings by value.

    Units with fewer than two ratings are 0 throughout.
    """
    counts = _counts(codes, count)
    given = counts.sum(axis=1)
    pairs = given * (given - 1)
    agreed = np.divide((counts * (counts - 1)).sum(axis=1), pairs, out=np.zeros(len(counts)), where=pairs > 0)
    kept = pairs > 0
    return np.concatenate([agreed[:, None], kept[:, None], counts * kept[:, None]], axis=1)


def fleiss_kappa(sums: FloatArray) -> FloatArray:
    """Kappa of several raters from sums [..., 2 + value] (Fleiss 1971): (P - P_e) / (1 - P_e).

    Units may differ in their number of ratings, which the paper does not allow; P is the plain mean over units.
    """
    units, by_value = sums[..., 1], sums[..., 2:]
    share = _ratio(by_value, by_value.sum(axis=-1)[..., None])
    expected = (share**2).sum(axis=-1)
    return _one_minus(1 - _ratio(sums[..., 0], units), 1 - expected)


def krippendorff_sums(codes: Codes, count: int) -> FloatArray:
    """[unit, value, value] coincidences (Krippendorff 2011): pairs of a unit's ratings over (number of ratings - 1)."""
    counts = _counts(codes, count)
    given = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(count)
    some = given[:, None, None] > 1
    shares: FloatArray = np.divide(pairs, (given - 1)[:, None, None], out=np.zeros_like(pairs), where=some)
    return shares


def krippendorff_alpha(coincidences: FloatArray, distances: FloatArray) -> FloatArray:
    """Alpha of any number of raters, from [..., value, value] coincidences: 1 - D_o / D_e. Ratings may be missing."""
    by_value = coincidences.sum(axis=-1)
    total = by_value.sum(axis=-1)
    expected = by_value[..., :, None] * by_value[..., None, :]
    apart = (distances * coincidences).sum(axis=(-2, -1)) * (total - 1)
    return _one_minus(apart, (distances * expected).sum(axis=(-2, -1)))


def _estimate_agreements(units: Units, raters: Sequence[str], *, resamples: int, seed: int) -> Iterator[Agreement]:
    """Cohen's kappa of every two raters; of all of them Fleiss' kappa (not on a scale) and Krippendorff's alpha."""
    count, distances = len(units.values), units.distances

    def estimate_agreement(
        measure: str, columns: Sequence[int], of: Callable[[Codes, int], FloatArray], figure: Callable[..., FloatArray]
    ) -> Agreement:
        codes = units.codes[:, list(columns)]
        kept = (codes != MISSING).sum(axis=1) >= 2
        sums = _sum_by_cluster(
            of(codes[kept], count), [name for name, keep in zip(units.clusters, kept, strict=True) if keep]
        )
        estimate = estimate_figure(sums, figure, scored=int(kept.sum()), resamples=resamples, seed=seed)
        observed = fleiss_sums(codes[kept], count)[:, 0]
        return Agreement(
            about=units.about,
            measure=measure,
            raters=tuple(raters[column] for column in columns),
            observed=float(observed.mean()) if len(observed) else None,
            estimate=estimate,
        )

    weighted = ", quadratic weights" if units.is_scale else ""
    for two in combinations(range(len(raters)), 2):
        yield estimate_agreement(f"Cohen's kappa{weighted}", two, cohen_sums, lambda sums: cohen_kappa(sums, distances))
    everybody = range(len(raters))
    if len(raters) > 2:
        if not units.is_scale:
            yield estimate_agreement("Fleiss' kappa", everybody, fleiss_sums, fleiss_kappa)
        scale = ", interval" if units.is_scale else ""
        alpha = f"Krippendorff's alpha{scale}"
        yield estimate_agreement(alpha, everybody, krippendorff_sums, lambda sums: krippendorff_alpha(sums, distances))


def _rated_questions(items: Mapping[str, LabelItem], ratings: Ratings) -> Iterator[Units]:
    """The questions that were rated; a skipped item counts as missing. Questions without a rating are left out."""
    known = [item for item in items.values() if any(item.id in theirs for theirs in ratings.values())]
    ratings_by_item = [[_unless_skipped(theirs.get(item.id)) for theirs in ratings.values()] for item in known]
    verdicts = [[MISSING if one is None else VERDICTS.index(one.verdict) for one in row] for row in ratings_by_item]
    clusters = tuple(_cluster(item) for item in known)
    yield Units("verdict", np.array(verdicts), clusters, tuple(range(len(VERDICTS))))
    yield from _marked_words(known, ratings_by_item)
    criteria = dict.fromkeys(
        name for row in ratings_by_item for one in row if one for side in _sides(one) for name in side.grades
    )
    for name in criteria:
        yield _grades(name, known, ratings_by_item)


def _marked_words(known: Sequence[LabelItem], ratings: Sequence[Sequence[Rating | None]]) -> Iterator[Units]:
    """A unit for each word of each answer, 1 where it was marked; yields nothing if no word was marked."""
    rows: list[Codes] = []
    clusters: list[str] = []
    for item, row in zip(known, ratings, strict=True):
        for number, answer in enumerate((item.first, item.second)):
            codes = np.full((len(word_spans(answer.text)), len(row)), MISSING)
            for column, one in enumerate(row):
                if one is not None:
                    codes[:, column] = 0
                    codes[spans_to_words(answer.text, _sides(one)[number].marks), column] = 1
            rows.append(codes)
            clusters += [_cluster(item)] * len(codes)
    if rows and (codes := np.concatenate(rows)).max(initial=0) > 0:
        yield Units("marked words", codes, tuple(clusters), (0, 1))


def _grades(name: str, known: Sequence[LabelItem], ratings: Sequence[Sequence[Rating | None]]) -> Units:
    """A unit for each answer."""
    given = [
        [None if one is None else _sides(one)[side].grades.get(name) for one in row]
        for row in ratings
        for side in (0, 1)
    ]
    values = sorted({grade for row in given for grade in row if grade is not None})
    codes = [[MISSING if grade is None else values.index(grade) for grade in row] for row in given]
    clusters = tuple(_cluster(item) for item in known for _ in (0, 1))
    return Units(f"grades: {name}", np.array(codes), clusters, tuple(map(float, values)), is_scale=True)


def _unless_skipped(rating: Rating | None) -> Rating | None:
    return None if rating is None or rating.verdict == "skip" else rating


def _sides(rating: Rating) -> tuple[AnswerAnnotation, AnswerAnnotation]:
    return rating.first, rating.second


def _cluster(item: LabelItem) -> str:
    """The cluster to resample: the item's own, else its image, else the item."""
    return item.cluster or next(iter(item.images), item.id)


def _counts(codes: Codes, count: int) -> FloatArray:
    """[unit, value]: number of raters that gave the value."""
    counts: FloatArray = (codes[:, :, None] == np.arange(count)).sum(axis=1).astype(np.float64)
    return counts


def _sum_by_cluster(sums: FloatArray, names: Sequence[str]) -> FloatArray:
    """Sums [unit, ...] added up within clusters: [cluster, ...]."""
    _, places = np.unique(np.array(names, dtype=str), return_inverse=True)
    added = np.zeros((int(places.max(initial=-1)) + 1, *sums.shape[1:]))
    np.add.at(added, places, sums)
    return added


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """The quotient; NaN where the denominator is not positive."""
    above, below = np.broadcast_arrays(above, below)
    quotient: FloatArray = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return quotient


def _one_minus(above: FloatArray, below: FloatArray) -> FloatArray:
    return 1 - _ratio(above, below)
