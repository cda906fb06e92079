"""The kinds of jobs of a study, and executing one by the same functions as the commands, in its own directory.

Modules that need torch are imported only when a job runs, so that plans and reports start fast. `plan` lists the jobs.
"""

import re
import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sightline.builders.registry import get_entry
from sightline.config import load_config
from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.models.spec import ModelSpec
from sightline.oracles import oracle_part
from sightline.records.manifest import Manifest, read_manifest
from sightline.study.plan import Job, StudyPlan

ADAPTER, MODEL = "adapter", "model"
_ROLE = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True)
class Places:
    """Settings of evaluations that do not affect results: folders of official files and images, and the batch size."""

    data: Path
    images: Path | None
    batch_size: int


@dataclass(frozen=True)
class JobContext:
    """A job with its directory, the directories of its inputs, and its model: all that another process needs."""

    piece: Job
    out: Path
    inputs: Mapping[str, Path]
    model: Path
    places: Places

    def settings(self) -> dict[str, Any]:
        """The job's settings with `${...}` replaced by directories."""

        def place(role: str) -> str:
            if role == "model":
                return str(self.model)
            return str(self.inputs[role] / ADAPTER if role.startswith("adapter.") else self.inputs[role])

        def walk(value: Any) -> Any:
            if isinstance(value, str):
                return _ROLE.sub(lambda found: place(found[1]), value)
            if isinstance(value, Mapping):
                return {key: walk(inner) for key, inner in value.items()}
            return [walk(inner) for inner in value] if isinstance(value, list) else value

        settings: dict[str, Any] = walk(self.piece.settings)
        return settings

    @property
    def spec(self) -> ModelSpec:
        """How the job opens its model."""
        return ModelSpec(name=str(self.model), **self.piece.settings.get("open", {}))

    def model_words(self) -> list[str]:
        """The words of a command line that open the model as `spec` does."""
        options = self.piece.settings.get("open", {})
        return ["--model", str(self.model), *_sets({f"model.{key}": value for key, value in options.items()})]

    @property
    def adapter(self) -> Path | None:
        """The adapter to evaluate; None for a whole model."""
        return self.inputs["train"] / ADAPTER if "train" in self.inputs else None

    @property
    def data(self) -> Path:
        """The folder of official files, or of the study's samples for a benchmark."""
        return self.inputs.get("data", self.places.data)

    @property
    def place(self) -> Path:
        """The input of an entity-matching step: a named file in its input directory, or the directory."""
        file = self.piece.settings["file"]
        return self.inputs["place"] / file if file is not None else self.inputs["place"]

    @property
    def files(self) -> Path:
        """The files of a published layout that an import reads."""
        inside = self.piece.settings["inside"]
        return self.inputs["files"] / inside if inside is not None else self.inputs["files"]


def execute_job(job: JobContext) -> Manifest:
    """Run a job, unless it is done; the manifest of its directory."""
    JOB_KINDS[job_sort(job.piece)].run(job)
    return read_manifest(job.out)


def lab_base() -> Path:
    """The directory of the lab's own model."""
    return Path(oracle_part("lab", "base_model"))


def job_sort(piece: Job) -> str:
    """The way in which a job is done: samples and pairs have several."""
    return next((sort for sort in JOB_KINDS if sort in piece.settings), piece.kind)


def _samples(job: JobContext) -> None:
    settings = job.settings()
    with _file(settings["scenes"]) as path:
        config = load_config(oracle_part("lab", "samples_config"), path)
    oracle_part("lab", "samples")(config, settings["split"], settings["count"], job.out)


def _curated(job: JobContext) -> None:
    from sightline.recipes.curation.config import CurateConfig
    from sightline.recipes.curation.run import Curation, curate

    with _file(job.settings()["curate"]) as path:
        config = load_config(CurateConfig, path)
    curate(Curation(job.inputs["samples"], config, seed=job.piece.seed), job.out)


def _matched(job: JobContext) -> None:
    from sightline.recipes.matching.steps import STEPS

    settings = job.settings()
    step = STEPS[settings["match"]]
    with _file(settings["config"]) as path:
        config = load_config(step.config, path)
    step.run(job.place, config, job.piece.seed, job.out, None)


def _built(job: JobContext) -> None:
    from sightline.builders.build import BuildPlan, build_dataset
    from sightline.builders.registry import get_builder

    builder = get_builder(job.piece.settings["builder"])
    with _file(job.settings()["config"]) as path:
        config = load_config(builder.config, path)
    model = job.spec if builder.needs_model and job.piece.server is None else None
    plan = BuildPlan(builder, config, job.piece.seed, server=job.piece.server)
    build_dataset(plan, model, job.inputs["samples"], job.out)


def _train(job: JobContext) -> None:
    from sightline.train.config import TrainConfig
    from sightline.train.run import train

    with _file(job.settings()["config"]) as path:
        config = load_config(TrainConfig, path)
    pairs, samples = job.inputs.get("pairs"), job.inputs.get("samples")
    train(job.spec, pairs, job.out, config, job.piece.seed, samples)


def _eval(job: JobContext) -> None:
    from sightline.evals.run import EvalConfig, EvalRuntime, Files, evaluate

    config = EvalConfig(**{key: value for key, value in job.settings().items() if key not in ("open", "endpoint")})
    runtime = EvalRuntime(batch_size=job.places.batch_size)
    where = Files(data=job.data, images=job.places.images)
    evaluate(job.piece.server or job.spec, job.out, config, adapter=job.adapter, files=where, runtime=runtime)


def _fetch(job: JobContext) -> None:
    from sightline.data.hub import FetchConfig, PackageConfig, fetch, fetch_package

    settings = job.settings()
    if settings["type"] == "package":
        fetch_package(PackageConfig(**settings), job.out)
    else:
        fetch(FetchConfig(**settings), job.out)


def _import(job: JobContext) -> None:
    from sightline.data.formats.importing import ImportRequest, import_layout
    from sightline.data.formats.layout import LayoutConfig

    settings = job.settings()
    with _file(settings["config"]) as path:
        read = load_config(LayoutConfig, path)
    images = None if settings["images"] is None else Path(settings["images"])
    import_layout(
        ImportRequest(job.files, settings["layout"], images, skip_bad=settings["skip_bad"], read=read), job.out
    )


def _take(job: JobContext) -> None:
    from sightline.builders.dataset_ops import TakeConfig, take_rows

    take_rows(job.inputs["source"], TakeConfig(**job.settings()["take"]), job.out)


def _average(job: JobContext) -> None:
    from sightline.builders.dataset_ops import average_datasets

    average_datasets(job.inputs["first"], job.inputs["second"], job.out)


@contextmanager
def _file(settings: Mapping[str, Any]) -> Iterator[Path]:
    """The settings as a YAML file, so that mistakes are reported as for any config."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
        yield path


def shell_command(job: JobContext) -> str:
    """The command as one shell line."""
    return shlex.join(["sightline", *command_words(job)])


def command_words(job: JobContext) -> list[str]:
    """The command's words after `sightline`, with the config as `--set` options."""
    return [*JOB_KINDS[job_sort(job.piece)].command(job), "--out", str(job.out)]


def _fetch_command(job: JobContext) -> list[str]:
    settings = job.settings()
    if settings["type"] == "package":
        inside = ["--inside", settings["inside"]] if settings["inside"] is not None else []
        return ["fetch", "package", settings["package"], *inside, *(["--source"] if settings["source"] else [])]
    return [
        "fetch",
        settings["type"],
        settings["hub"],
        *(["--revision", settings["revision"]] if settings["revision"] else []),
    ]


def _import_command(job: JobContext) -> list[str]:
    settings = job.settings()
    images = ["--images", settings["images"]] if settings["images"] is not None else []
    skip = ["--skip-bad"] if settings["skip_bad"] else []
    return ["import", settings["layout"], str(job.files), *images, *skip, *_sets(settings["config"])]


def _take_command(job: JobContext) -> list[str]:
    settings = job.settings()["take"]
    seed = ["--random-seed", str(settings["random_seed"])] if settings["random_seed"] is not None else []
    return ["pairs", "take", str(job.inputs["source"]), "--count", str(settings["count"]), *seed]


def _average_command(job: JobContext) -> list[str]:
    return ["pairs", "average", str(job.inputs["first"]), str(job.inputs["second"])]


def _samples_command(job: JobContext) -> list[str]:
    settings = job.settings()
    words = ["lab", "scenes", "--split", settings["split"], "--count", str(settings["count"])]
    return words + _sets(settings["scenes"])


def _curated_command(job: JobContext) -> list[str]:
    words = ["curate", str(job.inputs["samples"]), "--seed", str(job.piece.seed)]
    return words + _sets(job.settings()["curate"])


def _matched_command(job: JobContext) -> list[str]:
    settings = job.settings()
    return ["match", settings["match"], str(job.place), "--seed", str(job.piece.seed), *_sets(settings["config"])]


def _built_command(job: JobContext) -> list[str]:
    settings = job.settings()
    builder = settings["builder"]
    words = ["pairs", builder]
    words += _answering_words(job) if get_entry(builder).needs_model else []
    words += ["--seed", str(job.piece.seed), "--samples", str(job.inputs["samples"])]
    return words + _sets(settings["config"])


def _answering_words(job: JobContext) -> list[str]:
    """The options of the model, or of the server that answers for it."""
    server = job.piece.server
    if server is None:
        return job.model_words()
    given = server.model_dump(mode="json", exclude_defaults=True, exclude={"base_url"})
    sets = [word for key, value in given.items() for word in ("--endpoint-set", f"{key}={_inline(value)}")]
    return ["--endpoint", server.base_url, *sets]


def _train_command(job: JobContext) -> list[str]:
    words = ["train", *job.model_words(), "--seed", str(job.piece.seed)]
    for role in ("pairs", "samples"):
        words += [f"--{role}", str(job.inputs[role])] if role in job.inputs else []
    return words + _sets(job.settings()["config"])


def _eval_command(job: JobContext) -> list[str]:
    settings, places = job.settings(), job.places
    for key in ("open", "endpoint"):
        settings.pop(key, None)
    words = ["eval", *_answering_words(job), "--bench", ",".join(settings.pop("benchmarks"))]
    adapter = "--adapter" if job.piece.server is None else "--endpoint-adapter"
    words += [adapter, str(job.adapter)] if job.adapter is not None else []
    words += ["--data", str(job.data), "--batch-size", str(places.batch_size)]
    words += ["--images", str(places.images)] if places.images is not None else []
    return words + _sets({key: value for key, value in settings.items() if value is not None})


def _pairs_each(piece: Job) -> int | None:
    """The maximum number of pairs that a builder makes from a sample, by its registry entry."""
    most = get_entry(piece.settings["builder"]).most
    return whole_number(piece, most, 1) if isinstance(most, str) else most


def whole_number(piece: Job, key: str, default: int | None) -> int | None:
    """A number of the job's config, which has not been validated yet; None if it is missing or null.

    Raises:
        InputError: it is not a positive integer.
    """
    value = piece.settings["config"].get(key, default)
    if value is None:
        return None
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not is_whole or isinstance(value, bool) or value < 1:
        raise InputError(
            f"study: {piece.kind} {piece.label}: {key} = {shorten(value)} must be a whole number from 1 on"
        )
    return int(value)


def _import_rows(plan: StudyPlan, piece: Job) -> int | None:
    source = plan.config.pairs[piece.label].files
    return None if source is None else source.rows


def _built_rows(plan: StudyPlan, piece: Job) -> int | None:
    each, below = _pairs_each(piece), max_rows(plan, piece.inputs.get("samples"))
    return None if each is None or below is None else below * each


class JobKind(NamedTuple):
    """One kind of job: how it runs, the command that does the same by hand, and the most rows that it writes."""

    run: Callable[[JobContext], None]
    command: Callable[[JobContext], list[str]]
    rows: Callable[[StudyPlan, Job], int | None] = lambda *_: None


#: Kinds of jobs; a job whose settings have a key of this name is of this kind, others are of their plan's kind.
JOB_KINDS = {
    "fetch": JobKind(_fetch, _fetch_command),
    "samples": JobKind(_samples, _samples_command, lambda _, piece: int(piece.settings["count"])),
    "curate": JobKind(_curated, _curated_command),
    "match": JobKind(_matched, _matched_command),
    "builder": JobKind(_built, _built_command, _built_rows),
    "layout": JobKind(_import, _import_command, _import_rows),
    "take": JobKind(_take, _take_command, lambda _, piece: int(piece.settings["take"]["count"])),
    "average": JobKind(_average, _average_command, lambda plan, piece: max_rows(plan, piece.inputs["first"])),
    "train": JobKind(_train, _train_command),
    "eval": JobKind(_eval, _eval_command),
}


def max_rows(plan: StudyPlan, place: str | None) -> int | None:
    """The maximum number of pairs or samples that a job writes; None if it is unknown, or `place` is not a job."""
    piece = plan.jobs.get(place or "")
    return None if piece is None else JOB_KINDS[job_sort(piece)].rows(plan, piece)


def _sets(keys: dict[str, Any]) -> list[str]:
    return [word for key, value in keys.items() for word in ("--set", f"{key}={_inline(value)}")]


def _inline(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("\n...\n").strip()
