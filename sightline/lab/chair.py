"""lab-CHAIR, and the scenes that every benchmark of the lab asks about.

Descriptions are judged mention by mention (CHAIR: Rohrbach et al. 2018) against the scene's complete truth. The other
benchmarks are in `benches` and `meta_benchmark`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.evals.benchmark import AnyMetric, Metric, mean
from sightline.lab.parser import judge, parse_claims
from sightline.lab.samples import image_path
from sightline.lab.words import KINDS, THEME_OF, WorldConfig
from sightline.lab.world import Scene, sample_scene, scene_rng
from sightline.records import Answer, Sample, Score

DESCRIBE = "Describe the image."
_PURPOSE = 4  # number of this use of a scene's random streams


@dataclass(frozen=True)
class Scenes:
    """The scenes of a benchmark, and the folder of their images."""

    world: WorldConfig
    split: str
    count: int
    folder: Path

    def __iter__(self) -> Iterator[tuple[Scene, np.random.Generator, str]]:
        for index in range(self.count):
            scene = sample_scene(self.world, self.split, index)
            yield scene, scene_rng(self.world, self.split, index, _PURPOSE), image_path(self.folder, scene)

    def sample(self, scene: Scene, image: str, task: str, prompt: str, about: str = "") -> Sample:
        """One question about a scene; `about` is the kind in question, stored beside the scene's truth."""
        return Sample(
            id=f"{scene.id}/{task}/{about}" if about else f"{scene.id}/{task}",
            images=(image,),
            prompt=prompt,
            task=task,
            cluster=scene.id,
            truth={**scene.to_truth(), "about": about},
        )


@dataclass(frozen=True)
class LabChair:
    """Descriptions judged mention by mention: CHAIR_s, CHAIR_i and recall over kinds."""

    name: str
    scenes: Scenes
    max_new_tokens: int = 160

    @property
    def folder(self) -> Path:
        return self.scenes.folder

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        return {
            "chair_s": mean(
                "hallucinates", "Descriptions that name an absent object", higher_is_better=False, primary=True
            ),
            "chair_i": Metric(
                label="Mentions of absent objects",
                numerator={"absent_mentions": 1},
                denominator={"mentions": 1},
                higher_is_better=False,
            ),
            "recall": Metric(
                label="Objects named", numerator={"found": 1}, denominator={"present": 1}, higher_is_better=True
            ),
            "wrong_color": Metric(
                label="Color words that are wrong",
                numerator={"wrong_colors": 1},
                denominator={"colors": 1},
                higher_is_better=False,
            ),
            "theme_share": Metric(
                label="Absent objects that are of the scene's theme",
                numerator={"absent_of_theme": 1},
                denominator={"absent_mentions": 1},
                higher_is_better=None,
            ),
            "theme_chance": Metric(
                label="The same, were absent kinds named evenly",
                numerator={"absent_of_theme_by_chance": 1},
                denominator={"absent_mentions": 1},
                higher_is_better=None,
            ),
        }

    def samples(self) -> Iterator[Sample]:
        for scene, _, image in self.scenes:
            yield self.scenes.sample(scene, image, "description", DESCRIBE)

    def score(self, sample: Sample, answer: Answer) -> Score:
        scene = Scene.from_truth(sample.truth)
        claims = parse_claims(answer.text)
        verdict = judge(claims, scene)
        asserted = [m for m in claims.mentions if not m.negated]
        theme = [m for m in verdict.hallucinated if THEME_OF[m.kind] == scene.theme]
        absent = [k for k in KINDS if k not in scene.kinds]
        chance = sum(THEME_OF[k] == scene.theme for k in absent) / len(absent)
        values: dict[str, float | None] = {
            "hallucinates": float(bool(verdict.hallucinated)),
            "absent_mentions": float(len(verdict.hallucinated)),
            "absent_of_theme": float(len(theme)),
            "absent_of_theme_by_chance": chance * len(verdict.hallucinated),
            "mentions": float(len(asserted)),
            "found": float(len(verdict.mentioned)),
            "present": float(len(scene.kinds)),
            "wrong_colors": float(len(verdict.wrong_colors)),
            "colors": float(sum(m.color is not None and m.kind in scene.kinds for m in asserted)),
        }
        details = {
            "hallucinated": [[m.start, m.end] for m in verdict.hallucinated],
            "absent": sorted({m.kind for m in verdict.hallucinated}),
        }
        return Score(sample_id=sample.id, cluster=sample.cluster, values=values, details=details)
