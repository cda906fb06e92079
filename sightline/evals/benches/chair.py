"""CHAIR (Rohrbach et al. 2018, arXiv 1809.02156): COCO objects that a description names but the image does not show.

Objects and truth are in `coco_objects`. CHAIR_i counts mentions, not distinct objects; recall is that of the standalone
script (Maxlinn) and of OPERA. Object HalBench is `object_halbench`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.evals.benches.coco_objects import CocoPicture, Vocabulary, answer_picture, chair_vocabulary, read_truth
from sightline.evals.benchmark import AnyMetric, BenchmarkOptions, Metric, mean
from sightline.records.rows import Answer, Sample, Score

DESCRIBE = "Please describe this image in detail."

CHAIR_METRICS: dict[str, AnyMetric] = {
    "chair_s": mean("hallucinates", "Descriptions that name an absent object", higher_is_better=False, primary=True),
    "chair_i": Metric(
        label="Mentions of absent objects",
        numerator={"absent_mentions": 1},
        denominator={"mentions": 1},
        higher_is_better=False,
    ),
    "recall": Metric(label="Objects named", numerator={"found": 1}, denominator={"present": 1}, higher_is_better=True),
}


def chair(name: str, options: BenchmarkOptions) -> "Chair":
    """CHAIR on the images of COCO's annotation files or of a JSON of objects; `synonyms` replaces the word list."""
    return Chair(
        name,
        options.folder,
        options.images or options.folder,
        chair_vocabulary(options.synonyms),
        limit=options.limit,
    )


@dataclass(frozen=True)
class Chair:
    """Every annotated image may be described, even several times; every description is scored."""

    name: str
    place: Path
    folder: Path
    vocabulary: Vocabulary
    limit: int | None = None
    max_new_tokens: int = 512
    scores_only_answered: bool = True
    counts_every_answer: bool = True

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        return CHAIR_METRICS

    @cached_property
    def pictures(self) -> Mapping[str, CocoPicture]:
        return read_truth(self.name, self.place)

    @property
    def caveats(self) -> tuple[str, ...]:
        return self.vocabulary.caveats

    def samples(self) -> Iterator[Sample]:
        for number, (image_id, picture) in enumerate(self.pictures.items()):
            if number == self.limit:
                return
            yield Sample(
                id=image_id,
                images=(picture.file,) if picture.file else (),
                prompt=DESCRIBE,
                task="description",
                cluster=image_id,
                truth={"objects": picture.objects, "captions": picture.captions},
            )

    def score(self, sample: Sample, answer: Answer) -> Score:
        present = present_objects(sample, self.vocabulary)
        mentions = self.vocabulary.mentions(answer.text)
        absent = [mention for mention in mentions if mention.object not in present]
        values: dict[str, float | None] = {
            "hallucinates": float(bool(absent)),
            "absent_mentions": float(len(absent)),
            "mentions": float(len(mentions)),
            "found": float(len({mention.object for mention in mentions} & present)),
            "present": float(len(present)),
        }
        details = {
            "hallucinated": [mention.span for mention in absent],
            "absent": sorted({mention.object for mention in absent}),
            "present": sorted(present),
        }
        return Score(sample_id=sample.id, cluster=sample.cluster, values=values, details=details)

    def answer_key(self, row: Mapping[str, Any]) -> str | None:
        return answer_picture(row)


def present_objects(sample: Sample, vocabulary: Vocabulary) -> set[str]:
    """The union of the annotated objects and those that the reference captions name."""
    annotated = {vocabulary.resolve(name) for name in sample.truth["objects"]}
    captioned = (mention.object for caption in sample.truth["captions"] for mention in vocabulary.mentions(caption))
    return annotated.union(captioned)
