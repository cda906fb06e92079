"""The methods section of a study: every setting, from the config and the manifests of finished jobs.

Shared settings are listed once, others for each arm. Number formats and devices are those that were used according to
the manifests, not those in the config.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sightline.records.manifest import Computed
from sightline.study.config import BASE, LAB, StudyModel
from sightline.study.datasets import SamplesSpec
from sightline.study.report.ingredients import arm_recipe, level_text, manifest_of
from sightline.study.report.words import name
from sightline.study.results import Evidence


class Paragraph(NamedTuple):
    """A heading and its sentences."""

    title: str
    text: str


def methods(evidence: Evidence, resamples: int) -> list[Paragraph]:
    """Paragraphs on the model, samples, pairs, training, evaluation and statistics."""
    recipes = {arm: arm_recipe(evidence, arm) for arm in evidence.arms}
    return [
        Paragraph("Model and samples", _model(evidence)),
        *_pairs(evidence, recipes),
        *_training(evidence, recipes),
        Paragraph("Evaluation", _evaluation(evidence)),
        Paragraph("Statistics", statistics_text(evidence, resamples)),
    ]


def settings_text(config: Mapping[str, Any]) -> str:
    """Every setting as `a.b value`, in order; sections that are absent are left out."""
    return ", ".join(f"{key} {level_text(value)}" for key, value in _flat(config) if value is not None)


def in_effect(config: Mapping[str, Any], records: Iterable[Computed]) -> dict[str, Any]:
    """Settings with the number formats and the device that were used, in place of the configured ones.

    Without records (older manifests, or no model was run) the settings are unchanged.
    """
    found = list(records)
    if not found:
        return dict(config)
    values = {
        "autocast": _each("yes" if record.autocast else "no" for record in found),
        "dtype": _each(record.dtype for record in found),
    }
    rest = {key: values.get(key, value) for key, value in config.items() if key != "device"}
    return {**rest, **values, "computed on": _each(f"{record.device_name} ({record.device})" for record in found)}


def _each(values: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(values))


def statistics_text(evidence: Evidence, resamples: int) -> str:
    """The statistical methods: intervals, p values and stars."""
    seeds = evidence.plan.config.seeds
    bootstrap = (
        f"95 % percentile intervals of {resamples:,} bootstrap resamples of the images (clusters of questions),"
        " expanded for their number"
    )
    intervals = (
        f"Numbers are means over {len(seeds)} seeds. Intervals are for other images and other seeds: the variance is"
        " that between images plus that between seeds, their interaction counted once; the degrees of freedom are"
        f" Satterthwaite's; and where Student's interval of the {len(seeds)} seeds' own numbers is wider, it is taken."
        f" A model that is the same for every seed has {bootstrap}. Values of p are of the same tests."
        if len(seeds) > 1
        else f"Intervals are {bootstrap}. There is one seed: how much seeds differ is unknown, and no interval contains"
        " it. Values of p come from the same resamples."
    )
    claims = (
        " The word for a claim needs p below 5 % by Holm's correction over all claims of the study."
        if evidence.plan.config.claims
        else ""
    )
    return (
        f"A difference is paired: to {name(evidence.plan.config.baseline or BASE)} on the same images and with the same"
        f" seed. {intervals} The word for a difference follows its interval alone:"
        " within noise where it holds 0. A star means that p stays below 5 %"
        " by Holm's correction, whose family is every difference of the study, of all arms, benchmarks and metrics that"
        f" have a direction.{claims} Effects of single ingredients are a family of their own, in primary metrics. What"
        " could not be scored by every run is left out of a metric and counted."
    )


def _model(evidence: Evidence) -> str:
    config = evidence.plan.config
    models = ", ".join(describe_model(called, spec) for called, spec in config.all_models().items())
    seeds = ", ".join(map(str, config.seeds))
    samples = "; ".join(f"{called}: {_samples(spec)}" for called, spec in config.samples.items())
    return f"Trained is {models}. Seeds: {seeds}, of pairs and training. Samples: {samples or 'none'}."


def describe_model(called: str, spec: StudyModel) -> str:
    """A model's name in the study, its origin, and its own settings."""
    if spec.hub is not None:
        origin = spec.hub + (f" at {spec.revision}" if spec.revision else "")
    elif spec.package is not None:
        origin = f"the model in the package {spec.package.name}"
    else:
        origin = "the lab's model, which ships with Sightline" if spec.path == LAB else Path(str(spec.path)).name
    own = f" with {settings_text(spec.set)}" if spec.set else ""
    return (f"{called}, " if called else "") + origin + own


def _samples(spec: SamplesSpec) -> str:
    """Lab scenes as a phrase; any other origin by its keys."""
    if spec.split is None:
        return settings_text(spec.model_dump(mode="json", exclude_defaults=True))
    differing = f" with {settings_text(spec.scenes)}" if spec.scenes else ""
    return f"{spec.count} scenes of the split {spec.split}{differing}"


def _pairs(evidence: Evidence, recipes: Mapping[str, Mapping[str, Any]]) -> Iterator[Paragraph]:
    settings_by_name: dict[str, Mapping[str, Any]] = {}
    for arm, recipe in recipes.items():
        if recipe["pairs"] is not None:
            keys = [evidence.plan.jobs[run.train].inputs.get("pairs") for run in evidence.runs(arm)]
            records = computed_records(evidence, [key for key in keys if key in evidence.plan.jobs])
            settings_by_name.setdefault(recipe["pairs"]["called"], in_effect(recipe["pairs"], records))
    for called, settings in settings_by_name.items():
        spec = evidence.plan.config.pairs.get(called)
        often = "" if spec is None or spec.path else ", built anew for each seed" if spec.per_seed else ", built once"
        rest = {key: value for key, value in settings.items() if key != "called"}
        yield Paragraph(f"Pairs {called}", f"{settings_text(rest) or 'given'}{often}.")


def _training(evidence: Evidence, recipes: Mapping[str, Mapping[str, Any]]) -> Iterator[Paragraph]:
    """The settings shared by all arms, then each arm's own."""
    effective = {
        arm: in_effect(recipe, computed_records(evidence, [run.train for run in evidence.runs(arm)]))
        for arm, recipe in recipes.items()
    }
    flat = {arm: dict(_flat({**recipe, "pairs": _called(recipe)})) for arm, recipe in effective.items()}
    if not flat:
        return
    first = next(iter(flat.values()))
    shared = {key for key, value in first.items() if all(key in own and own[key] == value for own in flat.values())}
    common = {key: value for key, value in first.items() if key in shared}
    if common:
        yield Paragraph("Training, all arms", f"{settings_text(common)}.")
    for arm, own in flat.items():
        text = settings_text({key: value for key, value in own.items() if key not in shared})
        if text:
            yield Paragraph(f"Arm {arm}", f"{text}.")


def _evaluation(evidence: Evidence) -> str:
    manifest = manifest_of(evidence, next(iter(evidence.plan.bases.values())))
    evals = [*evidence.plan.bases.values(), *(run.eval for arm in evidence.arms for run in evidence.runs(arm))]
    config = in_effect(
        manifest.config if manifest else evidence.plan.config.evaluate.model_dump(mode="json"),
        computed_records(evidence, [key for key in evals if key is not None]),
    )
    remarks = dict.fromkeys(
        f"{bench}: {remark}"
        for base in evidence.bases.values()
        for bench, result in base.items()
        for remark in result.remarks
    )
    text = f"Every model answers the same prompts by greedy decoding, scored by the same rule: {settings_text(config)}."
    return " ".join((text, *(remark.rstrip(".") + "." for remark in remarks)))


def computed_records(evidence: Evidence, keys: Iterable[str]) -> list[Computed]:
    """The conditions of the forward passes of some jobs, from their manifests."""
    manifests = (manifest_of(evidence, key) for key in dict.fromkeys(keys))
    return [record for manifest in manifests if manifest is not None for record in manifest.computed]


def _called(recipe: Mapping[str, Any]) -> str | None:
    return None if recipe["pairs"] is None else str(recipe["pairs"]["called"])


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves with their dotted names; a list of sections, such as several losses, is one leaf."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(v, Mapping) for v in value):
            yield f"{prefix}{key}", " + ".join(_section(inner) for inner in value)
        else:
            yield f"{prefix}{key}", value


def _section(value: Any) -> str:
    return f"({settings_text(value)})" if isinstance(value, Mapping) else level_text(value)
