"""Pairs from a labels directory: the majority choice between two answers, and answers that raters corrected.

Rankings follow VLFeedback with people as the judge, corrections RLHF-V (arXiv 2312.00849), whose changed words are kept
as spans for dense DPO. No model is used; `evals.agreement` measures how far raters agree.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sightline.config import Config
from sightline.data.images import adopt_image
from sightline.data.labels import ITEMS, rater_files, read_items, read_ratings
from sightline.data.preference_dataset import PAIRS, write_preference_dataset
from sightline.data.texts import changed_spans, spans_to_words, words_to_spans
from sightline.errors import InputError
from sightline.records import AnswerAnnotation, LabelItem, Pair, RatedAnswer, Rating, Span, write_rows
from sightline.records.manifest import Manifest, Stage

NAME = "from-labels"
UNRATED, FEW = "nobody rated it", "fewer raters than asked"
TIED, SPLIT = "most raters see a tie", "no choice has more than half of the raters"


class FromLabelsConfig(Config):
    """Kinds of pairs to make; neither paper defines how to treat raters who disagree."""

    make: Literal["both", "rankings", "corrections"] = Field(
        default="both", description="pairs of rankings, of corrections, or of both"
    )
    raters: int = Field(default=1, ge=1, description="minimum number of raters who chose an answer or a tie")


@dataclass(frozen=True)
class RatedItem:
    """An item with the ratings of those who did not skip it, by rater."""

    item: LabelItem
    ratings: Mapping[str, Rating]

    def annotations(self, number: int) -> dict[str, AnswerAnnotation]:
        """Return each rater's annotation of the first (0) or second (1) answer."""
        return {name: (rating.first, rating.second)[number] for name, rating in self.ratings.items()}

    @property
    def answers(self) -> tuple[RatedAnswer, RatedAnswer]:
        """Both answers, first and second."""
        return self.item.first, self.item.second


def pairs_from_labels(labels: Path, out: Path, config: FromLabelsConfig) -> Manifest:
    """Write the pairs of a labels directory to `out`, in the order of ids; rater files may grow afterwards.

    Raises:
        InputError: there are no labels, a row is invalid, or no pair is left.
    """
    items, ratings = read_items(labels), read_ratings(labels)
    rated = [_rated_item(item, ratings) for item in items.values()]
    dropped: Counter[str] = Counter()
    pairs = sorted(_make_pairs(rated, config, dropped), key=lambda pair: pair.id)
    if not pairs:
        raise InputError(f"{labels}: no pair is left (dropped: {dict(dropped)}); rate more items")
    inputs = {"items": labels / ITEMS} | {f"rater {path.stem}": path for path in rater_files(labels)}
    stage = Stage.open(out, f"pairs {NAME}", config, inputs)
    if stage.done:
        return stage.manifest
    for image in dict.fromkeys(image for pair in pairs for image in pair.images):
        adopt_image(labels, image, out, str(out))
    write_rows(out / PAIRS, pairs)
    write_preference_dataset(out)
    corrections = sum(pair.provenance["by"] == "correction" for pair in pairs)
    counts = {
        "items": len(items),
        "raters": len(ratings),
        "pairs": len(pairs),
        "rankings": len(pairs) - corrections,
        "corrections": corrections,
    }
    return stage.finish(counts=counts, dropped=dict(dropped))


def majority_verdict(ratings: Sequence[Rating]) -> Literal["first", "second", "tie"] | None:
    """Return the verdict of more than half of the raters, none of whom skipped; None if no verdict has that many."""
    votes = Counter(rating.verdict for rating in ratings)
    verdict, most = max(votes.items(), key=lambda each: each[1])
    return verdict if 2 * most > len(ratings) and verdict != "skip" else None


def majority_marks(text: str, annotations: Sequence[AnswerAnnotation]) -> tuple[Span, ...]:
    """Return the spans of the words that more than half of the raters marked."""
    votes = Counter(word for one in annotations for word in spans_to_words(text, one.marks))
    return words_to_spans(text, [word for word, count in votes.items() if 2 * count > len(annotations)])


def _rated_item(item: LabelItem, ratings: Mapping[str, Mapping[str, Rating]]) -> RatedItem:
    theirs = {name: rows[item.id] for name, rows in ratings.items() if item.id in rows}
    return RatedItem(item, {name: rating for name, rating in theirs.items() if rating.verdict != "skip"})


def _make_pairs(rated: Sequence[RatedItem], config: FromLabelsConfig, dropped: Counter[str]) -> Iterator[Pair]:
    for one in rated:
        if config.make != "corrections":
            ranked = _ranking(one, config)
            if isinstance(ranked, Pair):
                yield ranked
            else:
                dropped[ranked] += 1
        if config.make != "rankings":
            yield from _corrections(one)


def _ranking(rated: RatedItem, config: FromLabelsConfig) -> Pair | str:
    """Return the pair of the majority choice, or the reason why there is none."""
    if not rated.ratings:
        return UNRATED
    if len(rated.ratings) < config.raters:
        return FEW
    verdict = majority_verdict(tuple(rated.ratings.values()))
    if verdict is None or verdict == "tie":
        return TIED if verdict == "tie" else SPLIT
    order = (0, 1) if verdict == "first" else (1, 0)
    votes = Counter(rating.verdict for rating in rated.ratings.values())
    provenance: dict[str, Any] = {
        "by": "ranking",
        "raters": sorted(rated.ratings),
        "votes": dict(sorted(votes.items())),
    }
    for name, number in zip(("chosen", "rejected"), order, strict=True):
        answer, annotations = rated.answers[number], list(rated.annotations(number).values())
        provenance[f"{name}_from"] = answer.id
        provenance[f"{name}_marks"] = majority_marks(answer.text, annotations)
        provenance[f"{name}_grades"] = _mean_grades(annotations)
    chosen, rejected = (rated.answers[number].text for number in order)
    return _pair(rated.item, "labeled", chosen, rejected, provenance=provenance)


def _corrections(rated: RatedItem) -> Iterator[Pair]:
    """Yield a pair for each answer and each distinct correction of it."""
    number = 0
    for side, answer in enumerate(rated.answers):
        texts: dict[str, list[str]] = {}
        for name, note in rated.annotations(side).items():
            if note.correction is not None and note.correction.strip() != answer.text.strip():
                texts.setdefault(note.correction.strip(), []).append(name)
        for text, raters in texts.items():
            chosen_spans, rejected_spans = changed_spans(text, answer.text.strip())
            marks = majority_marks(answer.text, [rated.annotations(side)[name] for name in raters])
            provenance = {"by": "correction", "raters": raters, "rejected_from": answer.id, "rejected_marks": marks}
            yield _pair(
                rated.item,
                f"mended-{number:03d}",
                text,
                answer.text,
                chosen_spans=chosen_spans,
                rejected_spans=rejected_spans,
                provenance=provenance,
            )
            number += 1


def _pair(item: LabelItem, suffix: str, chosen: str, rejected: str, **fields: object) -> Pair:
    return Pair.model_validate(
        {
            "id": f"{item.id}/{suffix}",
            "images": item.images,
            "history": item.history,
            "prompt": item.prompt,
            "chosen": chosen.strip(),
            "rejected": rejected.strip(),
            "builder": NAME,
            "cluster": item.cluster,
            **fields,
        }
    )


def _mean_grades(annotations: Sequence[AnswerAnnotation]) -> dict[str, float]:
    """Return the mean grade per criterion over the raters who gave one."""
    given: dict[str, list[int]] = {}
    for one in annotations:
        for name, grade in one.grades.items():
            given.setdefault(name, []).append(grade)
    return {name: sum(grades) / len(grades) for name, grades in given.items()}
