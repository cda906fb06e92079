"""The stages as functions: what `import sightline` offers beside the records and the in-memory layer.

Each function takes objects or paths, calls the stage that the command of the same name calls, and returns an object
that knows its directory. `out=None` is a temporary directory that lives as long as the process.
"""

import atexit
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sightline.api.results import ComparisonResult, Evaluation, PairSet, ReportPage, TrainRun
from sightline.config import load_config
from sightline.data.samples import write_samples
from sightline.errors import InputError
from sightline.records import Sample

if TYPE_CHECKING:
    from sightline.models.spec import ModelSpec
    from sightline.models.vlm import VLM

    Model = str | Path | ModelSpec | VLM | TrainRun

_FOLDERS: list[str] = []


def load(model: str | Path, **options: Any) -> "VLM":
    """Open a vision-language model with its processor, in evaluation mode.

    Args:
        model: a directory, a GGUF file, a hub id such as `owner/name`, or the name of a world with a model of its own
            (`"lab"`).
        options: keys of `ModelSpec`, such as `adapter` (a PEFT directory, for example `TrainRun.adapter`), `device`
            (by default a GPU if there is one), `dtype` (by default the checkpoint's on a GPU, float32 on a CPU),
            `quantize="nf4"`, `max_pixels` and `revision`.

    Raises:
        InputError: there is no such model, or it cannot be opened.

    Examples:
        >>> import sightline as sl
        >>> vlm = sl.load("lab")
    """
    from sightline.models.opening import open_model
    from sightline.models.spec import to_spec

    return open_model(to_spec(model).with_options(options))


def build_pairs(
    builder: str,
    samples: str | Path | Sequence[Sample],
    *,
    model: "Model | None" = None,
    out: str | Path | None = None,
    seed: int = 0,
    config: str | Path | None = None,
    **settings: Any,
) -> PairSet:
    """Build preference pairs from samples; `sightline list builders` names the builders and what each needs.

    Args:
        builder: name of a builder, such as `"bdhs"`.
        samples: a samples directory or JSONL file, a directory of pairs, or `Sample`s with absolute image paths.
        model: the model that is to be aligned, for builders that need one.
        out: directory to write; a call with the same arguments resumes or finds it complete.
        seed: decides every sampled answer, together with the sample's id.
        config: YAML file of the builder's config.
        settings: keys of the builder's config, set on top of `config`.

    Returns:
        The pairs, in the order of the samples.

    Raises:
        InputError: unknown builder or setting, samples or model that cannot be used, or no pair was left.

    Examples:
        >>> pairs = sl.build_pairs("bdhs", "samples/", model=vlm, rho=0.97, temperature=0.8)
    """
    from sightline.builders.build import BuildPlan, build_dataset
    from sightline.builders.registry import get_builder

    found = get_builder(builder)
    plan = BuildPlan(found, _configured(found.config, config, settings), seed)
    spec = None if model is None else _spec(model)
    directory = _out(out, "pairs")
    build_dataset(plan, spec, _samples(samples), directory)
    return PairSet(directory)


def loss(name: str, **parameters: Any) -> dict[str, Any]:
    """A loss and its parameters, checked, for `train`; a list of them is added up by `weight`.

    Args:
        name: such as `"dpo"`; `sightline list losses` names them with their parameters.
        parameters: the loss's parameters; `weight` is its factor in a list of losses.

    Returns:
        The setting as a dictionary.

    Raises:
        InputError: no such loss, or a parameter is missing, unknown or out of bounds.

    Examples:
        >>> sl.loss("dpo", beta=0.1)
        {'name': 'dpo', 'beta': 0.1}
    """
    from sightline.losses.table import check_loss

    check_loss(name, {key: value for key, value in parameters.items() if key != "weight"})
    return {"name": name, **parameters}


def train(  # noqa: PLR0913 - one parameter an option
    model: "Model",
    pairs: PairSet | str | Path | None,
    *,
    loss: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    lr: float | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    samples: str | Path | Sequence[Sample] | None = None,
    config: str | Path | None = None,
    **settings: Any,
) -> TrainRun:
    """Train an adapter (or the whole model) on preference pairs, or by rewards on prompts.

    Args:
        model: the model to start from, without an adapter.
        pairs: a `PairSet` or a directory of pairs; None for online training and training by rewards.
        loss: what `loss(...)` returned, or a list of these.
        lr: the peak learning rate (`optim.lr`); it has no default.
        out: directory to write; a call with the same arguments resumes or finds it complete.
        seed: decides the order of the pairs, the initial adapter, dropout and online answers.
        samples: prompts that are answered online, or that the pairs were built from.
        config: YAML file of the training config.
        settings: keys of the training config, set on top of `config`, such as `max_steps=20` or `lora={"rank": 16}`.

    Returns:
        The finished training.

    Raises:
        InputError: a setting, the model or the pairs cannot be used; a loss that is not finite or explodes.

    Examples:
        >>> run = sl.train(vlm, pairs, loss=sl.loss("dpo", beta=0.1), lr=6e-5, max_steps=20)
    """
    from sightline.train.config import TrainConfig
    from sightline.train.run import train as run_stage

    given = dict(settings)
    if loss is not None:
        given["loss"] = dict(loss) if isinstance(loss, Mapping) else [dict(one) for one in loss]
    if lr is not None:
        given["optim.lr"] = lr
    source = _spec(model)
    directory = _out(out, "train")
    prompts = None if samples is None else _samples(samples)
    run_stage(source, _pairs(pairs), directory, _configured(TrainConfig, config, given), seed, prompts)
    return TrainRun(directory, source)


def evaluate(  # noqa: PLR0913 - one parameter an option
    model: "Model",
    benchmarks: Sequence[str] | str,
    *,
    adapter: str | Path | None = None,
    data: str | Path | None = None,
    images: str | Path | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    config: str | Path | None = None,
    **settings: Any,
) -> Evaluation:
    """Answer and score benchmarks; `sightline list benchmarks` names them.

    Args:
        model: a model, or a `TrainRun`, whose adapter or trained model is then evaluated.
        benchmarks: names, such as `["lab-chair"]`.
        adapter: a PEFT directory, for a model that is not a `TrainRun`.
        data: folder of the benchmarks' official files.
        images: folder of their pictures, if elsewhere.
        out: directory to write; a call with the same arguments resumes or finds it complete.
        seed: of the resampling behind the intervals, and of sampled answers.
        config: YAML file of the evaluation config.
        settings: keys of the evaluation config, set on top of `config`, such as `limit=100`.

    Raises:
        InputError: unknown benchmark or setting, missing files, a model that cannot be opened.

    Examples:
        >>> base, new = sl.evaluate(vlm, ["lab-chair"]), sl.evaluate(run, ["lab-chair"])
    """
    from sightline.evals import run as stage

    names = [benchmarks] if isinstance(benchmarks, str) else list(benchmarks)
    if isinstance(model, TrainRun) and adapter is not None:
        raise InputError("a training run brings its adapter; leave adapter out")
    directory = _out(out, "evaluation")
    settings = {"benchmarks": names, **settings}
    files = stage.Files(*(None if path is None else Path(path) for path in (data, images)))
    stage.evaluate(
        _spec(model),
        directory,
        _configured(stage.EvalConfig, config, settings),
        adapter=None if adapter is None else Path(adapter),
        files=files,
        seed=seed,
    )
    return Evaluation(directory)


def compare(base: Evaluation | str | Path, *others: Evaluation | str | Path, seed: int = 0) -> ComparisonResult:
    """Compare evaluations on the same items: paired differences, intervals, p-values with Holm's correction.

    Args:
        base: the evaluation of the model to compare with.
        others: evaluations of the other model; several are training seeds, which the intervals then cover.
        seed: of the resampling.

    Raises:
        InputError: a directory is no evaluation, or the evaluations do not have the same items.

    Examples:
        >>> print(sl.compare(base, seed_0, seed_1, seed_2).results.headline)
    """
    from sightline.evals.directory import read_evaluation
    from sightline.evals.statistics import RESAMPLES
    from sightline.report.comparison import compare_evaluations

    if not others:
        raise InputError("there is nothing to compare with; give a second evaluation")
    sides = [read_evaluation(_path(one)) for one in others]
    return ComparisonResult(compare_evaluations(read_evaluation(_path(base)), sides, resamples=RESAMPLES, seed=seed))


def report(
    base: Evaluation | str | Path,
    *others: Evaluation | str | Path,
    out: str | Path,
    runs: Sequence[TrainRun | str | Path] = (),
    pairs: PairSet | str | Path | None = None,
) -> ReportPage:
    """Write the report on a base model and an aligned one (several are training seeds).

    Args:
        base: the evaluation of the base model.
        others: evaluations of the aligned model, one per training seed.
        out: a directory for `report.html`, `report.md` and `results.json`, or a file that ends in `.html` for the
            page alone.
        runs: the trainings that the report describes.
        pairs: the pairs that it describes.

    Raises:
        InputError: a directory is not of its kind, or the evaluations do not have the same items.

    Examples:
        >>> page = sl.report(base, new, out="runs/first/page.html", runs=[run], pairs=pairs)
    """
    from sightline.report.page import HTML, write_report

    target = Path(out)
    alone = target.suffix == ".html"
    directory = _out(None, "report") if alone else target
    write_report(
        directory,
        base=_path(base),
        aligned=[_path(one) for one in others],
        trainings=[_path(one) for one in runs],
        pairs=_pairs(pairs),
    )
    if alone:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(directory / HTML, target)
    return ReportPage(target if alone else directory / HTML)


def _spec(model: "Model") -> "ModelSpec":
    """How to open a model that is given by its name, as an open one, or as the run that trained it."""
    from sightline.models.spec import ModelSpec, to_spec

    if isinstance(model, TrainRun):
        if model.trained_model is not None:
            return to_spec(model.model).with_options({"name": str(model.trained_model)})
        return to_spec(model.model).with_options({"adapter": model.adapter})
    if isinstance(model, str | Path | ModelSpec):
        return to_spec(model)
    if hasattr(model.model, "peft_config") and model.spec.adapter is None:
        raise InputError("the model has an adapter in memory alone; save it and open the model with adapter=DIRECTORY")
    return model.spec


def _path(result: PairSet | TrainRun | Evaluation | str | Path) -> Path:
    return Path(result) if isinstance(result, str | Path) else result.path


def _pairs(pairs: PairSet | str | Path | None) -> Path | None:
    return None if pairs is None else _path(pairs)


def _samples(samples: str | Path | Sequence[Sample]) -> Path:
    if isinstance(samples, str | Path):
        return Path(samples)
    folder = _out(None, "samples")
    folder.mkdir(parents=True, exist_ok=True)
    write_samples(folder, samples)
    return folder


def _configured(model: type[Any], path: str | Path | None, settings: Mapping[str, Any]) -> Any:
    """A config from a file and settings, read and refused as on the command line; JSON is YAML."""
    overrides = [f"{key}={json.dumps(value, default=str)}" for key, value in settings.items()]
    return load_config(model, None if path is None else Path(path), overrides)


def _out(out: str | Path | None, kind: str) -> Path:
    if out is not None:
        return Path(out)
    if not _FOLDERS:
        _FOLDERS.append(tempfile.mkdtemp(prefix="sightline-"))
        atexit.register(shutil.rmtree, _FOLDERS[0], ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=_FOLDERS[0]))
