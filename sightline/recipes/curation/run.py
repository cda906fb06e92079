"""The stage `sightline curate`: the best questions of instruction data, and of those the best answers.

Align2LLaVA (arXiv 2409.18541): rank by the question, keep a share of each type; rank those by their answers (the best
of each turn, averaged over turns), keep a share again; rewrite the rest in the model's own style. `sightline train`
trains the reward models on pairs of `sightline pairs graded`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.data.formats.importing import ImportRequest, import_layout
from sightline.data.formats.published import LLAVA_INSTRUCT, write_llava
from sightline.data.images import adopt_image
from sightline.data.samples import read_samples, samples_file, write_samples
from sightline.data.terminal import Progress
from sightline.errors import InputError
from sightline.models.context import RunContext
from sightline.models.opening import open_model, resolve_spec
from sightline.models.spec import ModelSpec
from sightline.recipes.curation.config import CurateConfig, RankingConfig
from sightline.recipes.curation.conversations import (
    Conversation,
    answer_input,
    group_conversations,
    question_input,
    replace_answers,
    split_samples,
    split_turns,
)
from sightline.recipes.curation.restyling import RestyleResult, restyle
from sightline.recipes.curation.scoring import ScoredItem, ScoreRow, best_candidates, keep_best, score_items
from sightline.records import Manifest, Row, Sample, write_rows
from sightline.records.manifest import Stage, StageInput

SCORES, LLAVA, IMPORTED = "scores.jsonl", "llava.json", "imported"


class RankedConversation(Row):
    """The outcome of a conversation: its scores, if any, and whether it is in the result."""

    id: str
    task: str
    question: float | None = None
    answer: float | None = None
    kept: bool = False


@dataclass(frozen=True)
class Curation:
    """The input of a curation: a samples directory or, with `images`, LLaVA-Instruct's original files."""

    place: Path
    config: CurateConfig
    images: Path | None = None
    model: ModelSpec | str | Path | None = None
    seed: int = 0


def curate(job: Curation, out: Path, progress: Progress | None = None) -> Manifest:
    """Write the kept conversations as samples, as LLaVA-Instruct rows (`llava.json`), and every score.

    Raises:
        InputError: the stage, samples, judges, grades or writers are rejected, or nothing is left.
    """
    config = job.config
    spec = None if job.model is None else resolve_spec(job.model)
    inputs: dict[str, StageInput] = {"samples": job.place, **({} if spec is None else spec.inputs())}
    for name, ranking in (("questions", config.questions), ("answers", config.answers)):
        if ranking is not None and ranking.grades is not None:
            inputs[f"grades_{name}"] = ranking.grades
    stage = Stage.open(out, "curate", config, inputs, job.seed)
    if stage.done:
        return stage.manifest
    place = job.place if job.images is None else _import(job, out / "work" / IMPORTED)
    vlm = None if spec is None else open_model(spec)
    context = RunContext(samples_file(place).parent, out / "work", job.seed, vlm)
    found = group_conversations(read_samples(place, require_reference=True))
    best, rows, unscored = _rank(found, config, context, progress)
    if not best:
        raise InputError(f"{job.place}: none of {len(found)} conversations is left; check the scores in {out}/work")
    restyled = RestyleResult(best) if config.rewrite is None else restyle(best, config.rewrite, context, config.wave)
    for image in dict.fromkeys(image for sample in restyled.samples for image in sample.images):
        adopt_image(context.folder, image, out, str(out))
    kept = restyled.samples
    count = write_samples(out, (one for s in kept for one in (split_samples(s) if config.turns == "every" else [s])))
    write_llava(kept, out / LLAVA)
    write_rows(out / SCORES, rows)
    types = Counter(sample.task or "untyped" for sample in kept)
    counts = {"conversations": len(found), "kept": len(kept), "samples": count}
    rewriting = {"rewritten": restyled.rewritten, "refused": restyled.refused, "not_written": restyled.not_written}
    return stage.finish(
        counts=counts | {f"kept_{name}": number for name, number in sorted(types.items())},
        dropped={name: number for name, number in unscored.items() if number},
        numbers={} if config.rewrite is None else {name: float(number) for name, number in rewriting.items()},
    )


def _import(job: Curation, out: Path) -> Path:
    """LLaVA-Instruct's files as samples, one per conversation, typed by file name."""
    import_layout(ImportRequest(job.place, LLAVA_INSTRUCT.name, job.images), out)
    return out


def _rank(
    found: Sequence[Conversation], config: CurateConfig, context: RunContext, progress: Progress | None
) -> tuple[list[Sample], list[RankedConversation], dict[str, int]]:
    """The kept conversations with their best answers, every conversation's outcome, and unscored counts per stage."""
    rows = {one.id: RankedConversation(id=one.id, task=one.task) for one in found}
    left, unscored, done = list(found), dict[str, int](), 0
    best: Mapping[str, tuple[int, ...]] = {}

    def seen(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, max(done, len(found)))

    if config.questions is not None:
        items = [item for one in left for item in _question_items(one, context)]
        score_rows = score_items("questions", items, config.questions, context, config.wave, seen)
        scores = {one.id: _mean([score_rows[item.id] for item in _question_items(one, context)]) for one in left}
        rows |= {name: rows[name].model_copy(update={"question": score}) for name, score in scores.items()}
        left, unscored["questions without a score"] = _keep(left, scores, config.questions)
    if config.answers is not None:
        items = [item for one in left for turn in _answer_items(one, context) for item in turn]
        score_rows = score_items("answers", items, config.answers, context, config.wave, seen)
        found_best = {
            one.id: best_candidates(
                [[score_rows[item.id].score for item in turn] for turn in _answer_items(one, context)]
            )
            for one in left
        }
        scores = {name: score for name, (score, _) in found_best.items()}
        best = {name: places for name, (_, places) in found_best.items()}
        rows |= {name: rows[name].model_copy(update={"answer": score}) for name, score in scores.items()}
        left, unscored["answers without a score"] = _keep(left, scores, config.answers)
    rows |= {one.id: rows[one.id].model_copy(update={"kept": True}) for one in left}
    return [_with_best(one, best.get(one.id)) for one in left], list(rows.values()), unscored


def _question_items(one: Conversation, context: RunContext) -> list[ScoredItem]:
    sample = one.candidates[0]
    return [
        ScoredItem(f"{sample.id}#{number}", sample, number, question_input(sample, context.folder, question))
        for number, question in enumerate(one.questions)
    ]


def _answer_items(one: Conversation, context: RunContext) -> list[list[ScoredItem]]:
    """Per turn, an item for each candidate's answer."""
    turns_by_candidate = [split_turns(sample) for sample in one.candidates]
    return [
        [
            ScoredItem(f"{sample.id}#{number}", sample, number, answer_input(sample, context.folder, turn, turn.answer))
            for sample, turn in zip(one.candidates, turns, strict=True)
        ]
        for number, turns in enumerate(zip(*turns_by_candidate, strict=True))
    ]


def _mean(rows: Sequence[ScoreRow]) -> float | None:
    scores = [row.score for row in rows if row.score is not None]
    return sum(scores) / len(scores) if scores and len(scores) == len(rows) else None


def _keep(
    left: Sequence[Conversation], scores: Mapping[str, float | None], ranking: RankingConfig
) -> tuple[list[Conversation], int]:
    kept = keep_best(scores, {one.id: one.task for one in left}, ranking.keep, ranking.keep_by_type)
    return [one for one in left if one.id in kept], sum(score is None for score in scores.values())


def _with_best(one: Conversation, places: Sequence[int] | None) -> Sample:
    if not places:
        return one.candidates[0]
    return replace_answers(
        one.candidates[0],
        [split_turns(one.candidates[place])[number].answer for number, place in enumerate(places)],
    )
