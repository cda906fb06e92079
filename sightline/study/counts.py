"""How much work the pieces of a study are, from its config alone: rows, examples, tokens, answers. Nothing is opened.

Numbers of pairs are upper ends, since what a builder drops is known afterwards only; None is what nothing says yet.
What it takes in seconds is `estimate`.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.pairs.registry import get_entry
from sightline.study.plan import Piece, StudyPlan
from sightline.study.work import sort_of

#: Benchmark -> (answers, pictures) of the official files; of the lab's, of one scene.
ANSWERS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("pope", "pope-aokvqa", "pope-gqa"), (9000, 500)),
    **dict.fromkeys(("mmhal", "mmhal-v"), (96, 96)),
    "object-halbench": (300, 300),
    "llava-bench": (60, 24),
    "mm-vet": (218, 200),
    "textvqa": (5000, 3166),
    "gqa": (12578, 398),
    "amber": (15220, 1004),
    "amber-generative": (1004, 1004),
    "amber-discriminative": (14216, 1004),
    "mme": (2374, 1187),
}
_LAB = {"lab-chair": 1, "lab-vqa": 3, "lab-pope-random": 6, "lab-pope-popular": 6, "lab-pope-adversarial": 6}
_LAB_SCENES = 500  # of a lab benchmark without a limit
_BATCH, _ACCUMULATION = 8, 1  # TrainConfig's own, where a config does not say


def rows_of(plan: StudyPlan, place: str | None) -> int | None:
    """The most pairs or samples that a piece can hold."""
    piece = plan.pieces.get(place or "")
    if piece is None:
        return None
    settings = piece.settings
    if "take" in settings:
        return int(settings["take"]["count"])
    if sort_of(piece) == "samples":
        return int(settings["count"])
    if "layout" in settings:
        told = plan.config.pairs[piece.label].files
        return None if told is None else told.rows
    if sort_of(piece) == "average":
        return rows_of(plan, piece.inputs["first"])
    if sort_of(piece) == "builder":
        each, below = _pairs_each(piece), rows_of(plan, piece.inputs.get("samples"))
        return None if each is None or below is None else below * each
    return None


def trained_rows(plan: StudyPlan, piece: Piece) -> int | None:
    """The pairs, or prompts where there are none, that a training is given."""
    return rows_of(plan, piece.inputs.get("pairs") or piece.inputs.get("samples"))


def examples_of(plan: StudyPlan, piece: Piece) -> int | None:
    """The pairs or prompts that a training takes in all its steps, each as often as it comes."""
    config, rows = piece.settings["config"], trained_rows(plan, piece)
    steps, epochs = (_whole(config, key, None, piece) for key in ("max_steps", "epochs"))
    if steps is not None:
        return steps * step_rows(piece)
    return None if rows is None or epochs is None else epochs * rows


def step_rows(piece: Piece) -> int:
    """The pairs or prompts of one step of a training."""
    config = piece.settings["config"]
    batch = _whole(config, "batch_size", _BATCH, piece) or _BATCH
    return batch * (_whole(config, "accumulation", _ACCUMULATION, piece) or _ACCUMULATION)


def _pairs_each(piece: Piece) -> int | None:
    """The most pairs that a builder makes of a sample, by its entry in the registry."""
    most = get_entry(piece.settings["builder"]).most
    return _whole(piece.settings["config"], most, 1, piece) if isinstance(most, str) else most


def _whole(config: Mapping[str, Any], key: str, default: int | None, piece: Piece) -> int | None:
    """A number of a config that nothing has checked yet; None where it is left out or null.

    Raises:
        InputError: it is no whole number from 1 on.
    """
    value = config.get(key, default)
    if value is None:
        return None
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not is_whole or isinstance(value, bool) or value < 1:
        raise InputError(f"study: {piece.kind} {piece.label}: {key} = {shorten(value)} is no whole number from 1 on")
    return int(value)


def steps_of(plan: StudyPlan, piece: Piece) -> int | None:
    """The steps of a training."""
    examples = examples_of(plan, piece)
    return None if examples is None else math.ceil(examples / step_rows(piece))


def answers_of(benchmark: str, limit: int | None) -> int | None:
    """The answers that a benchmark asks for, on its first `limit` pictures."""
    if benchmark.removesuffix("-counter") in _LAB:
        return _LAB[benchmark.removesuffix("-counter")] * (limit or _LAB_SCENES)
    if benchmark not in ANSWERS:
        return None
    answers, pictures = ANSWERS[benchmark]
    return math.ceil(answers * min(1.0, (limit or pictures) / pictures))


def load_of(plan: StudyPlan, piece: Piece) -> int | None:
    """What a piece's time grows with: scenes, rows, examples of all steps, answers."""
    if piece.kind == "train":
        return examples_of(plan, piece)
    if piece.kind == "eval":
        known = [answers_of(name, piece.settings["limit"]) for name in piece.settings["benchmarks"]]
        return sum(count for count in known if count is not None) if None not in known else None
    if sort_of(piece) == "builder":
        return rows_of(plan, piece.inputs.get("samples"))
    return rows_of(plan, piece.key)


def inequalities(plan: StudyPlan) -> Iterator[str]:
    """One sentence for each thing in which the measured arms of a model would differ, as far as the config says."""
    for model in plan.bases:
        runs = [run for run in plan.runs if run.model == model and run.eval is not None]
        first = {run.arm: plan.pieces[run.train] for run in reversed(runs)}  # of the first seed
        rows = {arm: trained_rows(plan, piece) for arm, piece in reversed(first.items())}
        seen = {arm: examples_of(plan, piece) for arm, piece in reversed(first.items())}
        for what, counts in (("pairs or prompts", rows), ("pairs or prompts taken in all steps", seen)):
            known = {arm: count for arm, count in counts.items() if count is not None}
            if len(set(known.values())) > 1:
                least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
                yield f"arms differ in {what}: from {known[least]} ({least}) to {known[most]} ({most})"


def refuse_unequal(plan: StudyPlan) -> list[str]:
    """The sentences of `inequalities`, where the study allows them.

    Raises:
        InputError: there are some, and it does not.
    """
    found = list(inequalities(plan))
    if found and plan.config.unequal == "refused":
        raise InputError(
            f"study: {'; '.join(found)}; make them equal (equal: {{pairs: N}} cuts every arm's set; max_steps,"
            " batch_size and accumulation the steps), or say unequal: allowed"
        )
    return found
