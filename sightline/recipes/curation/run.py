"""The stage `sightline curate`: of instruction data the best questions, and of those the best answers.

Align2LLaVA (arXiv 2409.18541): rank by the question, keep a share of each type; rank those by their answers (the best
of each turn, averaged over turns), keep a share again; tell what is left in the model's own words. Reward models are
trained by `sightline train` on pairs of `sightline pairs graded`.
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
from sightline.models.loading import load_vlm
from sightline.models.tensor_cache import open_cache
from sightline.recipes.curation.config import CurateConfig, RankingConfig
from sightline.recipes.curation.conversations import (
    Conversation,
    answer_judged,
    conversations,
    one_by_one,
    question_judged,
    turns_of,
    with_answers,
)
from sightline.recipes.curation.restyling import Restyled, restyle
from sightline.recipes.curation.scoring import ScoredItem, ScoreRow, best_of, keep_best, scored
from sightline.records import Manifest, Row, Sample, write_rows
from sightline.records.manifest import Stage

SCORES, LLAVA, IMPORTED = "scores.jsonl", "llava.json", "imported"


class Ranked(Row):
    """What became of a conversation: its scores where it was asked for them, and whether it is in the result."""

    id: str
    task: str
    question: float | None = None
    answer: float | None = None
    kept: bool = False


@dataclass(frozen=True)
class Curation:
    """What to curate: a samples directory, or with `images` LLaVA-Instruct's own files as they are."""

    place: Path
    config: CurateConfig
    images: Path | None = None
    model: Path | None = None
    seed: int = 0


def curate(asked: Curation, out: Path, progress: Progress | None = None) -> Manifest:
    """Write the kept conversations as samples, as LLaVA-Instruct rows (`llava.json`), and every score.

    Raises:
        InputError: what the stage, the samples, judges, grades or writers refuse, or nothing is left.
    """
    config = asked.config
    inputs = {"samples": asked.place} | ({} if asked.model is None else {"model": asked.model})
    for name, ranking in (("questions", config.questions), ("answers", config.answers)):
        if ranking is not None and ranking.grades is not None:
            inputs[f"grades_{name}"] = ranking.grades
    stage = Stage.open(out, "curate", config, inputs, asked.seed)
    if stage.done:
        return stage.manifest
    place = asked.place if asked.images is None else _imported(asked, out / "work" / IMPORTED)
    vlm = None if asked.model is None else load_vlm(asked.model, cache=open_cache())
    tools = RunContext(samples_file(place).parent, out / "work", asked.seed, vlm)
    found = conversations(read_samples(place, require_reference=True))
    best, rows, unscored = _ranked(found, config, tools, progress)
    if not best:
        raise InputError(f"{asked.place}: no conversation is left of {len(found)}; look at the scores in {out}/work")
    restyled = Restyled(best) if config.rewrite is None else restyle(best, config.rewrite, tools, config.wave)
    for image in dict.fromkeys(image for sample in restyled.samples for image in sample.images):
        adopt_image(tools.folder, image, out, str(out))
    kept = restyled.samples
    count = write_samples(out, (one for s in kept for one in (one_by_one(s) if config.turns == "every" else [s])))
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


def _imported(asked: Curation, out: Path) -> Path:
    """LLaVA-Instruct's files as samples, a conversation each, their types by the files' names."""
    import_layout(ImportRequest(asked.place, LLAVA_INSTRUCT.name, asked.images), out)
    return out


def _ranked(
    found: Sequence[Conversation], config: CurateConfig, tools: RunContext, progress: Progress | None
) -> tuple[list[Sample], list[Ranked], dict[str, int]]:
    """The kept conversations with their best answers, what became of each, and how many had no score by which stage."""
    rows = {one.id: Ranked(id=one.id, task=one.task) for one in found}
    left, unscored, done = list(found), dict[str, int](), 0
    best: Mapping[str, tuple[int, ...]] = {}

    def seen(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, max(done, len(found)))

    if config.questions is not None:
        items = [item for one in left for item in _question_items(one, tools)]
        told = scored("questions", items, config.questions, tools, config.wave, seen)
        scores = {one.id: _mean([told[item.id] for item in _question_items(one, tools)]) for one in left}
        rows |= {name: rows[name].model_copy(update={"question": score}) for name, score in scores.items()}
        left, unscored["questions without a score"] = _kept(left, scores, config.questions)
    if config.answers is not None:
        items = [item for one in left for turn in _answer_items(one, tools) for item in turn]
        told = scored("answers", items, config.answers, tools, config.wave, seen)
        found_best = {
            one.id: best_of([[told[item.id].score for item in turn] for turn in _answer_items(one, tools)])
            for one in left
        }
        scores = {name: score for name, (score, _) in found_best.items()}
        best = {name: places for name, (_, places) in found_best.items()}
        rows |= {name: rows[name].model_copy(update={"answer": score}) for name, score in scores.items()}
        left, unscored["answers without a score"] = _kept(left, scores, config.answers)
    rows |= {one.id: rows[one.id].model_copy(update={"kept": True}) for one in left}
    return [_with_best(one, best.get(one.id)) for one in left], list(rows.values()), unscored


def _question_items(one: Conversation, tools: RunContext) -> list[ScoredItem]:
    sample = one.candidates[0]
    return [
        ScoredItem(f"{sample.id}#{number}", sample, number, question_judged(sample, tools.folder, question))
        for number, question in enumerate(one.questions)
    ]


def _answer_items(one: Conversation, tools: RunContext) -> list[list[ScoredItem]]:
    """By turn, an item for each candidate's answer."""
    asked = [turns_of(sample) for sample in one.candidates]
    return [
        [
            ScoredItem(f"{sample.id}#{number}", sample, number, answer_judged(sample, tools.folder, turn, turn.answer))
            for sample, turn in zip(one.candidates, turns, strict=True)
        ]
        for number, turns in enumerate(zip(*asked, strict=True))
    ]


def _mean(rows: Sequence[ScoreRow]) -> float | None:
    scores = [row.score for row in rows if row.score is not None]
    return sum(scores) / len(scores) if scores and len(scores) == len(rows) else None


def _kept(
    left: Sequence[Conversation], scores: Mapping[str, float | None], ranking: RankingConfig
) -> tuple[list[Conversation], int]:
    kept = keep_best(scores, {one.id: one.task for one in left}, ranking.keep, ranking.keep_by_type)
    return [one for one in left if one.id in kept], sum(score is None for score in scores.values())


def _with_best(one: Conversation, places: Sequence[int] | None) -> Sample:
    if not places:
        return one.candidates[0]
    return with_answers(
        one.candidates[0],
        [turns_of(one.candidates[place])[number].answer for number, place in enumerate(places)],
    )
