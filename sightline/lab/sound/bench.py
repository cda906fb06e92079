"""The benchmark of pictures and sounds: accuracy by what a question needs, and what wrong answers go by.

`shared-media` shows each question what it needs, and see and hear beside the other input too; `shared-media-picture`
and `-sound` are for models of one kind and show what they take. It is reached by name through the registry.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sightline.evals.benchmark import AnyMetric, Benchmark, Setting, mean
from sightline.lab.sound.questions import BESIDE, BOTH, HEAR, SEE, asked_of
from sightline.lab.sound.soundscape import PICTURE, SOUND
from sightline.lab.sound.voices import AUDIBLE
from sightline.lab.vocabulary import WorldConfig
from sightline.records import Answer, Sample, Score

DEFAULT_SCENES = 200
TASKS = {SEE: "seen", HEAR: "heard", SEE + BESIDE: "seen, beside the sound", HEAR + BESIDE: "heard, beside the picture"}


def shared_media(name: str, setting: Setting) -> Benchmark:
    """The benchmark `name`, on `limit` soundscapes of test scenes or of validation scenes."""
    kind = name.removeprefix("shared-media").removeprefix("-")
    split = "validation" if setting.validation else "test"
    return SharedMedia(name, WorldConfig(), split, setting.limit or DEFAULT_SCENES, setting.folder, kind)


@dataclass(frozen=True)
class SharedMedia:
    """Questions of `questions.asked_of`; `only` names the kind of a model that takes one."""

    name: str
    world: WorldConfig
    split: str
    count: int
    folder: Path
    only: str = ""
    max_new_tokens: int = 6

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        own = {PICTURE: (SEE,), SOUND: (HEAR,)}.get(self.only, tuple(TASKS))
        parts = {
            task.replace("-", "_"): mean(task, f"Right: {TASKS[task]}", higher_is_better=True, group=task)
            for task in own
        }
        return {
            "both": mean(BOTH, "Right: what picture and sound share", higher_is_better=True, primary=True, group=BOTH),
            **parts,
            "both_seen": mean("only_seen", "Of shared: what is only seen", higher_is_better=None, group=BOTH),
            "both_heard": mean("only_heard", "Of shared: what is only heard", higher_is_better=None, group=BOTH),
        }

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return (sample.task,)

    def samples(self) -> Iterator[Sample]:
        tasks = {PICTURE: (SEE, BOTH), SOUND: (HEAR, BOTH)}.get(self.only)
        for sample in asked_of(self.world, self.split, self.count, self.folder):
            if tasks is None:
                yield sample
            elif sample.task in tasks:
                yield _showing(sample, self.only)

    def score(self, sample: Sample, answer: Answer) -> Score:
        said = _named(answer.text)
        values: dict[str, float | None] = dict.fromkeys((*TASKS, BOTH))
        values[sample.task] = float(said == sample.truth["answer"])
        values["only_seen"] = float(said == sample.truth[SEE])
        values["only_heard"] = float(said == sample.truth[HEAR])
        return Score(
            sample_id=sample.id,
            cluster=sample.cluster,
            groups=self.groups(sample),
            values=values,
            details={"truth": sample.truth["answer"], "said": said},
        )


def _showing(sample: Sample, kind: str) -> Sample:
    """The same question to a model that takes one kind alone."""
    images = tuple(image for image, each in zip(sample.images, sample.media, strict=True) if each == kind)
    return sample.model_copy(update={"images": images, "media": (kind,) * len(images)})


def _named(text: str) -> str | None:
    """The kind that an answer names first; None where it names none."""
    words = "".join(c if c.isalpha() else " " for c in text.lower()).split()
    return next((word for word in words if word in AUDIBLE), None)
