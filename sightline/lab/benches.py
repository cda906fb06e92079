"""The lab's benchmarks: lab-POPE, lab-CHAIR and lab-VQA, on natural and on counter-prior scenes.

The questions follow the published rules (POPE: Li et al. 2023; CHAIR: Rohrbach et al. 2018) with the lab's complete
truth in place of annotations. `sightline.evals.registry` lists them; lab-CHAIR is in
`chair`, lab-meta in `meta_benchmark`.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.evals.benchmark import AnyMetric, Benchmark, BenchmarkOptions, mean
from sightline.evals.yes_no import YES_NO_METRICS, score_yes_no
from sightline.lab.chair import LabChair, Scenes
from sightline.lab.language import ObjectGroup, horizontal, object_groups, vertical
from sightline.lab.meta_benchmark import LabMeta
from sightline.lab.words import COLORS, COUNT_WORDS, KINDS, WorldConfig, article, plural
from sightline.lab.world import Scene, sample_scene
from sightline.records import Answer, Sample, Score

_POPE_QUESTIONS = 3  # per image and answer, as the official lists have it
DEFAULT_SCENES = 500


def lab_benchmark(name: str, setting: BenchmarkOptions) -> Benchmark:
    """The lab benchmark `name`, on `limit` scenes; tune settings on `validation` scenes, never on test ones."""
    natural = name.removesuffix("-counter")
    part = "validation" if setting.validation else "test"
    split = part if natural == name else f"counter-{part}"
    scenes = Scenes(WorldConfig(), split, setting.limit or DEFAULT_SCENES, setting.folder)
    if natural == "lab-chair":
        return LabChair(name, scenes)
    if natural.startswith("lab-meta"):
        return LabMeta(name, scenes, natural.endswith("-unseen"))
    if natural == "lab-vqa":
        return LabVQA(name, scenes)
    return LabPope(name, scenes, natural.removeprefix("lab-pope-"))


@functools.cache
def co_occurrence(world: WorldConfig, scenes: int = 4000) -> tuple[Counter[str], dict[str, Counter[str]]]:
    """Counts of kinds and of pairs of kinds in natural training scenes, for the popular and adversarial variants."""
    single: Counter[str] = Counter()
    together: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for index in range(scenes):
        kinds = sample_scene(world, "train", index).kinds
        single.update(kinds)
        for kind in kinds:
            together[kind].update(kinds - {kind})
    return single, together


@dataclass(frozen=True)
class LabPope:
    """`Is there a cup in the image?`: as many present as absent kinds; the absent ones are chosen by `variant`."""

    name: str
    scenes: Scenes
    variant: str
    max_new_tokens: int = 24

    @property
    def folder(self) -> Path:
        return self.scenes.folder

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        return YES_NO_METRICS

    def samples(self) -> Iterator[Sample]:
        for scene, rng, image in self.scenes:
            present = [str(k) for k in rng.permutation(sorted(scene.kinds))[:_POPE_QUESTIONS]]
            for kind in (*present, *self._absent(rng, scene, len(present))):
                yield self.scenes.sample(scene, image, "yes-no", f"Is there {article(kind)} {kind} in the image?", kind)

    def score(self, sample: Sample, answer: Answer) -> Score:
        return score_yes_no(answer, truth=sample.truth["about"] in Scene.from_truth(sample.truth).kinds)

    def _absent(self, rng: np.random.Generator, scene: Scene, count: int) -> list[str]:
        absent = [k for k in KINDS if k not in scene.kinds]
        if self.variant == "random":
            return [str(k) for k in rng.permutation(absent)[:count]]
        single, together = co_occurrence(self.scenes.world)
        if self.variant == "popular":
            return sorted(absent, key=lambda k: (-single[k], k))[:count]
        # The official adversarial rule: absent objects that co-occur most often with those present.
        return sorted(absent, key=lambda k: (-sum(together[p][k] for p in scene.kinds), k))[:count]


@dataclass(frozen=True)
class LabVQA:
    """Questions about counts, colors and positions of present objects: the capability that alignment must preserve."""

    name: str
    scenes: Scenes
    max_new_tokens: int = 24

    @property
    def folder(self) -> Path:
        return self.scenes.folder

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        return {
            "accuracy": mean("correct", "Answers that are right", higher_is_better=True, primary=True),
            "count": mean("count", "Counts that are right", higher_is_better=True, group="count"),
            "color": mean("color", "Colors that are right", higher_is_better=True, group="color"),
            "position": mean("position", "Positions that are right", higher_is_better=True, group="position"),
        }

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return (sample.task,)

    def samples(self) -> Iterator[Sample]:
        for scene, rng, image in self.scenes:
            groups = object_groups(scene)
            counted, colored = (groups[int(rng.integers(len(groups)))] for _ in range(2))
            singles = [g for g in groups if g.count == 1]
            yield self._ask(scene, image, "count", counted)
            yield self._ask(scene, image, "color", colored)
            if singles:
                yield self._ask(scene, image, "position", singles[int(rng.integers(len(singles)))])

    def score(self, sample: Sample, answer: Answer) -> Score:
        group = next(g for g in object_groups(Scene.from_truth(sample.truth)) if g.kind == sample.truth["about"])
        correct = float(_CHECKS[sample.task](answer.text.lower(), group))
        values: dict[str, float | None] = {task: (correct if task == sample.task else None) for task in _CHECKS}
        return Score(
            sample_id=sample.id,
            cluster=sample.cluster,
            groups=self.groups(sample),
            values={"correct": correct, **values},
            details={"truth": _TRUTHS[sample.task](group)},
        )

    def _ask(self, scene: Scene, image: str, task: str, group: ObjectGroup) -> Sample:
        noun = plural(group.kind) if task == "count" or group.count > 1 else group.kind
        prompt = {
            "count": f"How many {noun} are there?",
            "color": f"What color {'are' if group.count > 1 else 'is'} the {noun}?",
            "position": f"Where is the {noun}?",
        }[task]
        return self.scenes.sample(scene, image, task, prompt, group.kind)


def _words(text: str) -> set[str]:
    return set("".join(c if c.isalnum() else " " for c in text).split())


def _right_count(text: str, group: ObjectGroup) -> bool:
    names = {name: number for number, name in COUNT_WORDS.items()} | {str(n): n for n in COUNT_WORDS}
    numbers = {names[w] for w in _words(text) if w in names}
    return numbers == {group.count}


def _right_color(text: str, group: ObjectGroup) -> bool:
    return _words(text) & set(COLORS) == {group.color}


def _right_position(text: str, group: ObjectGroup) -> bool:
    """Both thirds must be right; an unnamed direction means the middle."""
    words = _words(text)
    across = words & {"left", "right"} or {"middle"}
    down = words & {"top", "bottom"} or {"middle"}
    named = words & {"left", "right", "top", "bottom", "middle", "center"}
    return bool(named) and across == {horizontal(group.where)} and down == {vertical(group.where)}


_CHECKS: dict[str, Callable[[str, ObjectGroup], bool]] = {
    "count": _right_count,
    "color": _right_color,
    "position": _right_position,
}
_TRUTHS: dict[str, Callable[[ObjectGroup], str]] = {
    "count": lambda g: COUNT_WORDS[g.count],
    "color": lambda g: g.color,
    "position": lambda g: f"{vertical(g.where)} {horizontal(g.where)}",
}
