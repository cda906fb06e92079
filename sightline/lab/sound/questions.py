"""Questions that need the picture, the sound, or both: four kinds of thing to choose from, of which one is right.

The form of the last is MCUB's (2402.12750): what do the inputs share? Wrong answers of it are what only one input has,
so that a model with one input is right half of the time at best. Nobody is trained on it, nor with two inputs at once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sightline.lab.sound.soundscape import PICTURE, SOUND, media_paths, question_rng, soundscapes
from sightline.lab.sound.voices import AUDIBLE
from sightline.lab.vocabulary import WorldConfig
from sightline.records import Pair, Sample

SEE, HEAR, BOTH = "see", "hear", "both"
BESIDE = "-beside"  # the same question with the other input shown too
WHERE = {SEE: "in the picture", HEAR: "in the sound", BOTH: "in both"}
#: What a question is asked of.
NEEDS = {SEE: (PICTURE,), HEAR: (SOUND,), BOTH: (PICTURE, SOUND)}
_TRAINING, _ASKING = 1, 2


def question(task: str, options: Sequence[str]) -> str:
    """`Which of these is in the picture: cow, car, drum or hen?`"""
    return f"Which of these is {WHERE[task]}: {', '.join(options[:-1])} or {options[-1]}?"


def answer(kind: str) -> str:
    """`The cow.`: behind a space the lab's tokenizer has the word whole, which in capitals it spells out in pieces."""
    return f"The {kind}."


def asked_of(world: WorldConfig, split: str, count: int, folder: Path) -> Iterator[Sample]:
    """Five questions on each of `count` soundscapes: see and hear, each alone and beside the other, and both.

    `truth` has the right kind under "answer", and which options are only seen, only heard, or neither.
    """
    for made in soundscapes(world, split, count):
        rng, paths = question_rng(world, made, _ASKING), media_paths(folder, made)
        both, seen, heard = (str(rng.choice(kinds)) for kinds in (made.shared, made.seen, made.heard))
        strange = [str(kind) for kind in rng.permutation(made.neither)]
        told = {
            SEE: (seen, [heard, *strange[:2]]),
            HEAR: (heard, [seen, *strange[2:4]]),
            BOTH: (both, [seen, heard, strange[4]]),
        }
        for task, (right, wrong) in told.items():
            options = [str(kind) for kind in rng.permutation([right, *wrong])]
            for suffix in ("", BESIDE) if task != BOTH else ("",):
                media = NEEDS[BOTH] if suffix else NEEDS[task]
                yield Sample(
                    id=f"{made.scene.id}/{task}{suffix}",
                    images=tuple(paths[name] for name in media),
                    media=media,
                    prompt=question(task, options),
                    reference=answer(right),
                    task=f"{task}{suffix}",
                    cluster=made.scene.id,
                    truth={"answer": right, "options": options, SEE: seen, HEAR: heard},
                )


def lessons(world: WorldConfig, count: int, folder: Path, task: str) -> Iterator[Pair]:
    """Training rows of one kind of media: SEE or HEAR, each with its own input alone; the answer is the chosen one."""
    for made in soundscapes(world, "preference", count):
        rng, paths = question_rng(world, made, _TRAINING), media_paths(folder, made)
        there = {SEE: (*made.shared, *made.seen), HEAR: (*made.shared, *made.heard)}[task]
        right = str(rng.choice(there))
        options = _options(rng, right, [kind for kind in AUDIBLE if kind not in there])
        wrong = next(kind for kind in options if kind != right)
        yield Pair(
            id=f"{made.scene.id}/{task}",
            images=tuple(paths[name] for name in NEEDS[task]),
            media=NEEDS[task],
            prompt=question(task, options),
            chosen=answer(right),
            rejected=answer(wrong),
            builder="lab sounds",
            cluster=made.scene.id,
            provenance={"task": task},
        )


def _options(rng: np.random.Generator, right: str, absent: Sequence[str]) -> list[str]:
    return [str(kind) for kind in rng.permutation([right, *rng.permutation(list(absent))[:3]])]
