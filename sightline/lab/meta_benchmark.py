"""lab-meta: descriptions under the wishes of provider and user, and how often they follow the wish in force.

Every scene is asked about twice, under two wishes that contradict each other, so that who always answers alike is
right once and never twice (MetaAlign, arXiv 2410.14184, whose own measure is not published). `lab-meta` has trained
wishes about new scenes, `lab-meta-unseen` wishes that nothing was trained on; whether what is told is true is measured
besides.
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

#: Whose wish stands where: the provider against the user, the user alone, both of one mind.
KINDS_OF_TIERS = ("priority", "user", "agreeing")
UNSEEN = ("object", "wording", "rule")
_PAIR = "pair"


@dataclass(frozen=True)
class LabMeta:
    """`unseen` asks for what was never trained on: other objects, other wordings, another rule, a third each."""

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
                continue  # no object of the scene would do
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
        """Put on the second answer about a scene whether both follow; the two stand together."""
        return both_right(scores, "follows", "both", lambda _: (_PAIR,))
