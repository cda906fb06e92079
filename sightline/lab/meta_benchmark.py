"""lab-meta: descriptions under wishes of provider and user, scored by whether they follow the wish in force.

Every scene is used twice, with two contradicting wishes, so that a model that always answers alike is right once and
never twice (MetaAlign, arXiv 2410.14184, whose own measure is not published). `lab-meta` has trained wishes on new
scenes, `lab-meta-unseen` wishes that were never trained on; truthfulness is measured as well.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sightline.data.turns import tiers
from sightline.evals.benchmark import AnyMetric, mean
from sightline.evals.yes_no import both_right
from sightline.lab.chair import DESCRIBE, LabChair, Scenes
from sightline.lab.wishes import draw_contrast, follows, parse_rules
from sightline.records import Answer, Sample, Score

#: Sources of the wishes: provider against user, user alone, both agreeing.
KINDS_OF_TIERS = ("priority", "user", "agreeing")
UNSEEN = ("object", "wording", "rule")
_PAIR = "pair"


@dataclass(frozen=True)
class LabMeta:
    """The benchmark; `unseen` uses wishes never trained on: new objects, new wordings, a new rule, a third each."""

    name: str
    scenes: Scenes
    unseen: bool
    max_new_tokens: int = 160

    @property
    def folder(self) -> Path:
        return self.scenes.folder

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        parts = (*KINDS_OF_TIERS, *UNSEEN) if self.unseen else KINDS_OF_TIERS
        faithful = LabChair(self.name, self.scenes).metrics
        return {
            "follows": mean("follows", "Answers that follow the wish in force", higher_is_better=True, primary=True),
            "both": mean(
                "both", "Pictures with both of two opposite wishes followed", higher_is_better=True, group=_PAIR
            ),
            **{
                part: mean("follows", f"The same as follows: {part}", higher_is_better=True, group=part)
                for part in parts
            },
            **{name: faithful[name].model_copy(update={"primary": False}) for name in ("chair_s", "chair_i")},
        }

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return tuple(sample.truth["parts"])

    def samples(self) -> Iterator[Sample]:
        for number, (scene, rng, image) in enumerate(self.scenes):
            unseen = UNSEEN[number % len(UNSEEN)] if self.unseen else ""
            contrast = draw_contrast(rng, scene, unseen=unseen)
            if contrast is None:
                continue  # the scene has no suitable object
            kind = KINDS_OF_TIERS[int(rng.integers(len(KINDS_OF_TIERS)))]
            sides = (contrast.wanted, contrast.against)
            for place, (mine, other) in enumerate((sides, sides[::-1])):
                wishes = {"priority": (mine, other), "user": ("", mine), "agreeing": (mine, mine)}[kind]
                question = self.scenes.sample(scene, image, "description", DESCRIBE, str(place))
                truth = {**question.truth, "in_force": mine, "parts": [kind, *([unseen] if unseen else [])]}
                yield question.model_copy(update={"history": tiers(*wishes), "truth": truth})

    def score(self, sample: Sample, answer: Answer) -> Score:
        faithful = LabChair(self.name, self.scenes).score(sample, answer)
        kept = all(follows(rule, answer.text) for rule in parse_rules(sample.truth["in_force"]))
        return faithful.model_copy(
            update={
                "groups": self.groups(sample),
                "values": {**faithful.values, "follows": float(kept), "both": None},
                "details": {**faithful.details, "in_force": sample.truth["in_force"]},
            }
        )

    def combine(self, scores: Iterable[Score]) -> Iterator[Score]:
        """Mark the second of two adjacent answers about a scene with whether both follow."""
        return both_right(scores, "follows", "both", lambda _: (_PAIR,))
