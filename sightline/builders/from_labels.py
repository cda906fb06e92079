"""A labels directory -> preference pairs: what most raters chose, and answers as raters put them right.

Rankings are as in VLFeedback with people for a judge, corrections as in RLHF-V (arXiv 2312.00849), whose changed
words are kept as spans for dense DPO. No model is asked; how far raters agree is `evals.agreement`.
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
    """What is made of labels; neither paper says what becomes of raters who differ."""

    make: Literal["both", "rankings", "corrections"] = "both"
    raters: int = Field(default=1, ge=1, description="the fewest raters who must have chosen or seen a tie")


@dataclass(frozen=True)
class Spoken:
    """An item with the ratings of those who did not skip it, by rater."""

    item: LabelItem
    ratings: Mapping[str, Rating]

    def sides(self, number: int) -> dict[str, AnswerAnnotation]:
        """What each noted on the first (0) or second (1) answer."""
        return {name: (rating.first, rating.second)[number] for name, rating in self.ratings.items()}

    @property
    def answers(self) -> tuple[RatedAnswer, RatedAnswer]:
        """Both answers."""
        return self.item.first, self.item.second


def pairs_from_labels(labels: Path, out: Path, config: FromLabelsConfig) -> Manifest:
    """Write the pairs of a labels directory to `out`, in the order of ids; raters' files may grow on.

    Raises:
        InputError: no labels, a bad row, or no pair is left.
    """
    items, ratings = read_items(labels), read_ratings(labels)
    spoken = [_spoken(item, ratings) for item in items.values()]
    dropped: Counter[str] = Counter()
    made = sorted(_made(spoken, config, dropped), key=lambda pair: pair.id)
    if not made:
        raise InputError(f"{labels}: no pair is left, dropped were {dict(dropped)}; rate more of it")
    inputs = {"items": labels / ITEMS} | {f"rater {path.stem}": path for path in rater_files(labels)}
    stage = Stage.open(out, f"pairs {NAME}", config, inputs)
    if stage.done:
        return stage.manifest
    for image in dict.fromkeys(image for pair in made for image in pair.images):
        adopt_image(labels, image, out, str(out))
    write_rows(out / PAIRS, made)
    write_preference_dataset(out)
    corrections = sum(pair.provenance["by"] == "correction" for pair in made)
    counts = {
        "items": len(items),
        "raters": len(ratings),
        "pairs": len(made),
        "rankings": len(made) - corrections,
        "corrections": corrections,
    }
    return stage.finish(counts=counts, dropped=dict(dropped))


def majority(ratings: Sequence[Rating]) -> Literal["first", "second", "tie"] | None:
    """What more than half of the raters said, who all did not skip; None where nothing has so many."""
    votes = Counter(rating.verdict for rating in ratings)
    verdict, most = max(votes.items(), key=lambda each: each[1])
    return verdict if 2 * most > len(ratings) and verdict != "skip" else None


def marked_by_most(text: str, noted: Sequence[AnswerAnnotation]) -> tuple[Span, ...]:
    """Spans of the words that more than half of the raters marked."""
    votes = Counter(word for one in noted for word in spans_to_words(text, one.marks))
    return words_to_spans(text, [word for word, count in votes.items() if 2 * count > len(noted)])


def _spoken(item: LabelItem, ratings: Mapping[str, Mapping[str, Rating]]) -> Spoken:
    theirs = {name: rows[item.id] for name, rows in ratings.items() if item.id in rows}
    return Spoken(item, {name: rating for name, rating in theirs.items() if rating.verdict != "skip"})


def _made(spoken: Sequence[Spoken], config: FromLabelsConfig, dropped: Counter[str]) -> Iterator[Pair]:
    for one in spoken:
        if config.make != "corrections":
            ranked = _ranking(one, config)
            if isinstance(ranked, Pair):
                yield ranked
            else:
                dropped[ranked] += 1
        if config.make != "rankings":
            yield from _corrections(one)


def _ranking(spoken: Spoken, config: FromLabelsConfig) -> Pair | str:
    """The pair of what most raters chose, or why there is none."""
    if not spoken.ratings:
        return UNRATED
    if len(spoken.ratings) < config.raters:
        return FEW
    verdict = majority(tuple(spoken.ratings.values()))
    if verdict is None or verdict == "tie":
        return TIED if verdict == "tie" else SPLIT
    order = (0, 1) if verdict == "first" else (1, 0)
    votes = Counter(rating.verdict for rating in spoken.ratings.values())
    provenance: dict[str, Any] = {
        "by": "ranking",
        "raters": sorted(spoken.ratings),
        "votes": dict(sorted(votes.items())),
    }
    for name, number in zip(("chosen", "rejected"), order, strict=True):
        answer, noted = spoken.answers[number], list(spoken.sides(number).values())
        provenance[f"{name}_from"] = answer.id
        provenance[f"{name}_marks"] = marked_by_most(answer.text, noted)
        provenance[f"{name}_grades"] = _mean_grades(noted)
    chosen, rejected = (spoken.answers[number].text for number in order)
    return _pair(spoken.item, "labeled", chosen, rejected, provenance=provenance)


def _corrections(spoken: Spoken) -> Iterator[Pair]:
    """A pair for each answer and each different text that a rater made of it."""
    number = 0
    for side, answer in enumerate(spoken.answers):
        texts: dict[str, list[str]] = {}
        for name, noted in spoken.sides(side).items():
            if noted.correction is not None and noted.correction.strip() != answer.text.strip():
                texts.setdefault(noted.correction.strip(), []).append(name)
        for text, raters in texts.items():
            chosen_spans, rejected_spans = changed_spans(text, answer.text.strip())
            marks = marked_by_most(answer.text, [spoken.sides(side)[name] for name in raters])
            provenance = {"by": "correction", "raters": raters, "rejected_from": answer.id, "rejected_marks": marks}
            yield _pair(
                spoken.item,
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


def _mean_grades(noted: Sequence[AnswerAnnotation]) -> dict[str, float]:
    """The mean grade by criterion over those who gave one."""
    given: dict[str, list[int]] = {}
    for one in noted:
        for name, grade in one.grades.items():
            given.setdefault(name, []).append(grade)
    return {name: sum(grades) / len(grades) for name, grades in given.items()}
