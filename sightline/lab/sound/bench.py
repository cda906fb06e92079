"""The benchmark of pictures and sounds: accuracy by the media a question needs, and the source of wrong answers.

`shared-media` gives each question the media it needs, and single-media questions also with the other input added;
`shared-media-picture` and `-sound` are for models of one medium. `sightline.evals.registry` lists them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.evals.benchmark import AnyMetric, Benchmark, BenchmarkOptions, mean
from sightline.lab.sound.soundscape import AUDIBLE, PICTURE, SOUND, media_paths, question_rng, soundscapes
from sightline.lab.words import WorldConfig
from sightline.records import Answer, Pair, Sample, Score

SEE, HEAR, BOTH = "see", "hear", "both"
BESIDE = "-beside"  # the same question with the other input shown too
WHERE = {SEE: "in the picture", HEAR: "in the sound", BOTH: "in both"}
#: The media a question needs.
NEEDS = {SEE: (PICTURE,), HEAR: (SOUND,), BOTH: (PICTURE, SOUND)}
_TRAINING, _ASKING = 1, 2


def question(task: str, options: Sequence[str]) -> str:
    """`Which of these is in the picture: cow, car, drum or hen?`"""
    return f"Which of these is {WHERE[task]}: {', '.join(options[:-1])} or {options[-1]}?"


def answer(kind: str) -> str:
    """`The cow.`: after a space the word is one token of the lab's tokenizer; capitalized it would be several."""
    return f"The {kind}."


def media_questions(world: WorldConfig, split: str, count: int, folder: Path) -> Iterator[Sample]:
    """Five questions on each of `count` soundscapes: see and hear, each alone and with the other input, and both.

    `truth` has the right kind under "answer", the options, and those only seen or only heard.
    """
    for soundscape in soundscapes(world, split, count):
        rng, paths = question_rng(world, soundscape, _ASKING), media_paths(folder, soundscape)
        both, seen, heard = (str(rng.choice(kinds)) for kinds in (soundscape.shared, soundscape.seen, soundscape.heard))
        strange = [str(kind) for kind in rng.permutation(soundscape.neither)]
        choices = {
            SEE: (seen, [heard, *strange[:2]]),
            HEAR: (heard, [seen, *strange[2:4]]),
            BOTH: (both, [seen, heard, strange[4]]),
        }
        for task, (right, wrong) in choices.items():
            options = [str(kind) for kind in rng.permutation([right, *wrong])]
            for suffix in ("", BESIDE) if task != BOTH else ("",):
                media = NEEDS[BOTH] if suffix else NEEDS[task]
                yield Sample(
                    id=f"{soundscape.scene.id}/{task}{suffix}",
                    images=tuple(paths[name] for name in media),
                    media=media,
                    prompt=question(task, options),
                    reference=answer(right),
                    task=f"{task}{suffix}",
                    cluster=soundscape.scene.id,
                    truth={"answer": right, "options": options, SEE: seen, HEAR: heard},
                )


def lessons(world: WorldConfig, count: int, folder: Path, task: str) -> Iterator[Pair]:
    """Training pairs of one task, SEE or HEAR, with that task's input only; `chosen` is the right answer."""
    for soundscape in soundscapes(world, "preference", count):
        rng, paths = question_rng(world, soundscape, _TRAINING), media_paths(folder, soundscape)
        there = {SEE: (*soundscape.shared, *soundscape.seen), HEAR: (*soundscape.shared, *soundscape.heard)}[task]
        right = str(rng.choice(there))
        options = _options(rng, right, [kind for kind in AUDIBLE if kind not in there])
        wrong = next(kind for kind in options if kind != right)
        yield Pair(
            id=f"{soundscape.scene.id}/{task}",
            images=tuple(paths[name] for name in NEEDS[task]),
            media=NEEDS[task],
            prompt=question(task, options),
            chosen=answer(right),
            rejected=answer(wrong),
            builder="lab sounds",
            cluster=soundscape.scene.id,
            provenance={"task": task},
        )


def _options(rng: np.random.Generator, right: str, absent: Sequence[str]) -> list[str]:
    return [str(kind) for kind in rng.permutation([right, *rng.permutation(list(absent))[:3]])]


DEFAULT_SCENES = 200
TASKS = {SEE: "seen", HEAR: "heard", SEE + BESIDE: "seen, beside the sound", HEAR + BESIDE: "heard, beside the picture"}


def shared_media(name: str, setting: BenchmarkOptions) -> Benchmark:
    """The benchmark `name`, on `limit` soundscapes of test scenes or of validation scenes."""
    kind = name.removeprefix("shared-media").removeprefix("-")
    split = "validation" if setting.validation else "test"
    return SharedMedia(name, WorldConfig(), split, setting.limit or DEFAULT_SCENES, setting.folder, kind)


@dataclass(frozen=True)
class SharedMedia:
    """The benchmark of `media_questions`; `only` names the medium of a single-media model."""

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
        for sample in media_questions(self.world, self.split, self.count, self.folder):
            if tasks is None:
                yield sample
            elif sample.task in tasks:
                yield _restrict_media(sample, self.only)

    def score(self, sample: Sample, answer: Answer) -> Score:
        named = _first_kind(answer.text)
        values: dict[str, float | None] = dict.fromkeys((*TASKS, BOTH))
        values[sample.task] = float(named == sample.truth["answer"])
        values["only_seen"] = float(named == sample.truth[SEE])
        values["only_heard"] = float(named == sample.truth[HEAR])
        return Score(
            sample_id=sample.id,
            cluster=sample.cluster,
            groups=self.groups(sample),
            values=values,
            details={"truth": sample.truth["answer"], "said": named},
        )


def _restrict_media(sample: Sample, kind: str) -> Sample:
    """The same question with the media of one kind only."""
    images = tuple(image for image, each in zip(sample.images, sample.media, strict=True) if each == kind)
    return sample.model_copy(update={"images": images, "media": (kind,) * len(images)})


def _first_kind(text: str) -> str | None:
    """The first kind that an answer names, or None."""
    words = "".join(c if c.isalpha() else " " for c in text.lower()).split()
    return next((word for word in words if word in AUDIBLE), None)
