"""`sightline lab compose`: picture and sound models, models composed of them, and one trained on both media.

It only calls stages that also have their own commands. Complete stages are skipped, so an interrupted study resumes.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from sightline.config import Config, load_config
from sightline.data.preference_dataset import PAIRS
from sightline.data.samples import write_samples
from sightline.data.terminal import Progress
from sightline.evals.directory import read_result
from sightline.evals.metrics import Metric, mean
from sightline.evals.run import EvalConfig, EvalRuntime, Files, evaluate
from sightline.evals.statistics import RESAMPLES, compare
from sightline.lab import BASE, CONFIGS
from sightline.lab.sound.bench import BESIDE, BOTH, HEAR, SEE, TASKS, lessons, media_questions
from sightline.lab.sound.ear import SoundStudyConfig, make_ear
from sightline.lab.sound.soundscape import PICTURE, SOUND
from sightline.lab.words import WorldConfig
from sightline.models.spec import to_spec
from sightline.recipes.composition.config import ComposeConfig, MemberConfig, SearchConfig
from sightline.recipes.composition.run import compose
from sightline.records import Pair
from sightline.records.manifest import Stage
from sightline.records.rows import Estimate, Row, Score
from sightline.records.store import atomic_write, read_json, write_json, write_rows
from sightline.train.config import TrainConfig
from sightline.train.run import ADAPTER, train

#: Model -> its label in the table, and its benchmark.
MODELS = {
    "picture": ("picture model alone", "shared-media-picture"),
    "sound": ("sound model alone", "shared-media-sound"),
    "mean": ("NaiveMC: mean", "shared-media"),
    "ties": ("TIES", "shared-media"),
    "searched": ("NaiveMC: weights searched", "shared-media"),
    "damc": ("DAMC: mean", "shared-media"),
    "damc-searched": ("DAMC: weights searched", "shared-media"),
    "joint": ("trained on both kinds of rows", "shared-media"),
}
REFERENCE = "mean"
GROUPS = {BOTH: "shared", **TASKS}


class MediaResult(Row):
    """One model on one kind of question: its accuracy, and its lead over NaiveMC's mean; both over all seeds."""

    accuracy: Estimate
    lead: Estimate
    by_seed: tuple[float | None, ...]


class MediaResults(Row):
    """The content of `results.json`: model -> kind of question -> result; weights by model and seed."""

    seeds: tuple[int, ...]
    scenes: int
    models: dict[str, dict[str, MediaResult]]
    weights: dict[str, list[dict[str, float]]]


def write_results(out: Path, config: SoundStudyConfig, seeds: tuple[int, ...]) -> MediaResults:
    """Compare the evaluations of a study's directory; writes `results.json` and `results.md` there."""
    runs = {name: [_scores(out, seed, name) for seed in seeds] for name in MODELS}
    models: dict[str, dict[str, MediaResult]] = {}
    for name, found in runs.items():
        models[name] = {}
        for group in GROUPS:
            after = [[score for score in run if group in score.groups] for run in found]
            if after[0]:
                models[name][group] = _result(group, runs[REFERENCE], after)
    results = MediaResults(
        seeds=seeds,
        scenes=config.scenes,
        models=models,
        weights={name: [_weights(out, seed, name) for seed in seeds] for name in ("searched", "damc-searched")},
    )
    write_json(out / "results.json", results.model_dump(mode="json"))
    with atomic_write(out / "results.md") as temporary:
        temporary.write_text(as_table(results), encoding="utf-8")
    return results


def as_table(results: MediaResults) -> str:
    """Markdown: accuracy in percent with its 95 % interval."""
    lines = [f"| model | {' | '.join(GROUPS.values())} |", f"| --- |{' --- |' * len(GROUPS)}"]
    for name, (label, _) in MODELS.items():
        by_group = results.models[name]
        cells = (_percent(by_group[group].accuracy) if group in by_group else "" for group in GROUPS)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", f"| lead over {MODELS[REFERENCE][0]}, points | {' | '.join(GROUPS.values())} |"]
    lines.append(f"| --- |{' --- |' * len(GROUPS)}")
    for name, (label, _) in MODELS.items():
        if name == REFERENCE:
            continue
        by_group = results.models[name]
        cells = (_percent(by_group[group].lead, signed=True) if group in by_group else "" for group in GROUPS)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _result(group: str, reference: list[list[Score]], after: list[list[Score]]) -> MediaResult:
    before = [[score for score in run if group in score.groups] for run in reference]
    metric: Metric = mean(group, group, higher_is_better=True)
    comparison = compare(list(zip(before, after, strict=True)), {group: metric}, resamples=RESAMPLES)[group]
    return MediaResult(accuracy=comparison.after, lead=comparison.difference, by_seed=comparison.by_seed)


def _scores(out: Path, seed: int, name: str) -> list[Score]:
    return list(read_result(out / f"seed-{seed}" / "eval" / name, MODELS[name][1]).scores)


def _weights(out: Path, seed: int, name: str) -> dict[str, float]:
    found: dict[str, float] = read_json(out / f"seed-{seed}" / "models" / name / "composed.json")["weights"]
    return found


def _percent(estimate: Estimate, *, signed: bool = False) -> str:
    if estimate.value is None or estimate.ci95 is None:
        return "-"
    form = "{:+.1f}" if signed else "{:.1f}"
    low, high = (form.format(100 * bound) for bound in estimate.ci95)
    return f"{form.format(100 * estimate.value)} ({low} to {high})"


#: Compositions: name -> settings besides the members, which have two adapters each if `decoupled`.
COMPOSED: dict[str, dict[str, Any]] = {
    "mean": {},
    "ties": {"merge": "ties", "weights": (1.0, 1.0)},
    "searched": {"search": True},
    "damc": {"decoupled": True},
    "damc-searched": {"decoupled": True, "search": True},
}
JOINT, BARE = "joint", "bare"
_TASKS = {PICTURE: (SEE,), SOUND: (HEAR,), JOINT: (SEE, HEAR)}


@dataclass(frozen=True)
class Study:
    """A study's directory and settings."""

    out: Path
    config: SoundStudyConfig
    bar: Callable[[str], AbstractContextManager[Progress]]

    @property
    def models(self) -> dict[str, Path]:
        """Base models by medium; the joint model starts from both, composed without adapters."""
        return {PICTURE: BASE, SOUND: self.out / "ear", JOINT: self.out / BARE}


def run_study(study: Study, seeds: tuple[int, ...]) -> MediaResults:
    """Run all incomplete stages, once per training seed, and write `results.json` and `results.md`."""
    with study.bar("ear") as progress:
        make_ear(study.config.ear, study.out / "ear", progress)
    members = {name: MemberConfig(model=to_spec(study.models[name])) for name in (PICTURE, SOUND)}
    compose(ComposeConfig(members=members, dtype="bfloat16"), study.out / BARE)
    for name, tasks in _TASKS.items():
        _write_lessons(study, name, tasks)
    _write_validation(study)
    for seed in seeds:
        _run_seed(study, seed)
    return write_results(study.out, study.config, seeds)


def _run_seed(study: Study, seed: int) -> None:
    folder = study.out / f"seed-{seed}"
    settings = load_config(TrainConfig, CONFIGS / "compose-sft.yaml", ())
    twofold = settings.model_copy(
        update={"lora": settings.lora and settings.lora.model_copy(update={"decoupled": True})}
    )
    for name in _TASKS:
        train(study.models[name], study.out / f"lessons-{name}", folder / name, settings, seed)
    for name in (PICTURE, SOUND):
        train(study.models[name], study.out / f"lessons-{name}", folder / f"{name}-two", twofold, seed)
    for name in (PICTURE, SOUND):
        _ask(study, folder, name, study.models[name], f"shared-media-{name}", folder / name / ADAPTER)
    _ask(study, folder, JOINT, study.models[JOINT], "shared-media", folder / JOINT / ADAPTER)
    for name, options in COMPOSED.items():
        composed = compose(_composition(study, folder, options), folder / "models" / name, seed)
        _ask(study, folder, name, composed, "shared-media")


def _composition(study: Study, folder: Path, options: dict[str, Any]) -> ComposeConfig:
    suffix = "-two" if options.get("decoupled") else ""
    members = {
        name: MemberConfig(model=to_spec(study.models[name]), adapter=folder / f"{name}{suffix}" / ADAPTER)
        for name in (PICTURE, SOUND)
    }
    merging = {key: value for key, value in options.items() if key != "search"}
    if options.get("search"):
        merging["search"] = SearchConfig(samples=study.out / "validation", values=study.config.values)
    if "merge" in merging:
        merging["density"] = study.config.density
    return ComposeConfig(members=members, dtype="bfloat16", **merging)


def _ask(study: Study, folder: Path, name: str, model: Path, benchmark: str, adapter: Path | None = None) -> None:
    evaluate(
        model,
        folder / "eval" / name,
        EvalConfig(benchmarks=(benchmark,), limit=study.config.scenes),
        adapter=adapter,
        files=Files(study.out / "test"),
        runtime=EvalRuntime(batch_size=study.config.batch_size),
    )


class _Rows(Config):
    """The settings that identify a directory of rows, for its manifest."""

    world: WorldConfig = Field(description="the world that rows are drawn from")
    tasks: tuple[str, ...] = Field(description="kinds of questions")
    count: int = Field(description="number of rows")


def _write_lessons(study: Study, name: str, tasks: tuple[str, ...]) -> None:
    out, config = study.out / f"lessons-{name}", study.config
    request = _Rows(world=config.world, tasks=tasks, count=config.rows)
    stage = Stage.open(out, "lab lessons", request, {}, config.world.seed)
    if stage.done:
        return

    def rows() -> Iterator[Pair]:
        for task in tasks:
            yield from lessons(config.world, config.rows, out, task)

    stage.finish(counts={"pairs": write_rows(out / PAIRS, rows())})


def _write_validation(study: Study) -> None:
    """Write the questions for the weight search: see, hear, and both; none with an added input."""
    out, config = study.out / "validation", study.config
    request = _Rows(world=config.world, tasks=(), count=config.validation)
    stage = Stage.open(out, "lab validation", request, {}, config.world.seed)
    if stage.done:
        return
    drawn = media_questions(config.world, "validation", config.validation, out)
    stage.finish(counts={"samples": write_samples(out, (row for row in drawn if not row.task.endswith(BESIDE)))})
