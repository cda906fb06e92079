"""The results of the study of composing: each model's accuracy by what a question needs, and its lead over the mean.

It reads scores and runs no model. Intervals are `evals.statistics`': over scenes and seeds at once.
"""

from pathlib import Path

from sightline.evals.directory import read_result
from sightline.evals.metrics import Metric, mean
from sightline.evals.statistics import RESAMPLES, compare
from sightline.lab.sound.bench import TASKS
from sightline.lab.sound.config import StudyConfig
from sightline.lab.sound.questions import BOTH
from sightline.records.rows import Estimate, Row, Score
from sightline.records.store import read_json, replacing, write_json

#: Model -> what the table calls it, and its benchmark.
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
    """All of it, as `results.json` holds it: model -> kind of question -> result; weights by model and seed."""

    seeds: tuple[int, ...]
    scenes: int
    models: dict[str, dict[str, MediaResult]]
    weights: dict[str, list[dict[str, float]]]


def write_results(out: Path, config: StudyConfig, seeds: tuple[int, ...]) -> MediaResults:
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
    with replacing(out / "results.md") as temporary:
        temporary.write_text(as_table(results), encoding="utf-8")
    return results


def as_table(results: MediaResults) -> str:
    """Markdown: accuracy in percent with its 95 % interval."""
    lines = [f"| model | {' | '.join(GROUPS.values())} |", f"| --- |{' --- |' * len(GROUPS)}"]
    for name, (label, _) in MODELS.items():
        made = results.models[name]
        cells = (_percent(made[group].accuracy) if group in made else "" for group in GROUPS)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", f"| lead over {MODELS[REFERENCE][0]}, points | {' | '.join(GROUPS.values())} |"]
    lines.append(f"| --- |{' --- |' * len(GROUPS)}")
    for name, (label, _) in MODELS.items():
        if name == REFERENCE:
            continue
        made = results.models[name]
        cells = (_percent(made[group].lead, signed=True) if group in made else "" for group in GROUPS)
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _result(group: str, reference: list[list[Score]], after: list[list[Score]]) -> MediaResult:
    before = [[score for score in run if group in score.groups] for run in reference]
    metric: Metric = mean(group, group, higher_is_better=True)
    made = compare(list(zip(before, after, strict=True)), {group: metric}, resamples=RESAMPLES)[group]
    return MediaResult(accuracy=made.after, lead=made.difference, by_seed=made.by_seed)


def _scores(out: Path, seed: int, name: str) -> list[Score]:
    return list(read_result(out / f"seed-{seed}" / "eval" / name, MODELS[name][1]).scores)


def _weights(out: Path, seed: int, name: str) -> dict[str, float]:
    found: dict[str, float] = read_json(out / f"seed-{seed}" / "models" / name / "composed.json")["weights"]
    return found


def _percent(made: Estimate, *, signed: bool = False) -> str:
    if made.value is None or made.ci95 is None:
        return "-"
    form = "{:+.1f}" if signed else "{:.1f}"
    low, high = (form.format(100 * bound) for bound in made.ci95)
    return f"{form.format(100 * made.value)} ({low} to {high})"
