"""How a piece of work is done: by the same functions that the commands call, in the piece's own directory.

Rooms that need torch are imported where a piece is done and not before, so that plans and reports start at once. Which
pieces there are is `plan`.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sightline.config import load_config
from sightline.records.manifest import Manifest, read_manifest
from sightline.study.plan import Piece

ADAPTER, MODEL = "adapter", "model"
_ROLE = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True)
class Places:
    """What evaluations need that decides no number: the folders of official files and pictures, and the batch."""

    data: Path
    images: Path | None
    batch_size: int


@dataclass(frozen=True)
class Job:
    """A piece with everything it needs to be done in another process: its directory, those of its inputs, the model."""

    piece: Piece
    out: Path
    inputs: Mapping[str, Path]
    model: Path
    places: Places

    def settings(self) -> dict[str, Any]:
        """The piece's settings with the directories in place."""

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

        made: dict[str, Any] = walk(self.piece.settings)
        return made

    @property
    def adapter(self) -> Path | None:
        """The adapter that an evaluation puts on its model."""
        return self.inputs["train"] / ADAPTER if "train" in self.inputs else None

    @property
    def data(self) -> Path:
        """The folder of official files, or of the study's own samples that a benchmark asks."""
        return self.inputs.get("data", self.places.data)

    @property
    def place(self) -> Path:
        """What a step of entity matching is done on: a file inside its input where one is named, or the input."""
        file = self.piece.settings["file"]
        return self.inputs["place"] / file if file is not None else self.inputs["place"]

    @property
    def files(self) -> Path:
        """The files of a published layout that an import reads."""
        inside = self.piece.settings["inside"]
        return self.inputs["files"] / inside if inside is not None else self.inputs["files"]


def do(job: Job) -> Manifest:
    """Do a piece, or find it done; the manifest of its directory."""
    _DOERS[sort_of(job.piece)](job)
    return read_manifest(job.out)


def lab_base() -> Path:
    """The directory of the lab's own model."""
    return Path(str(files("sightline"))) / "lab" / "base"


def sort_of(piece: Piece) -> str:
    """What a piece does, by which it is done: samples and pairs come about in several ways."""
    ways = ("curate", "match", "builder", "layout", "take", "average")
    return next((way for way in ways if way in piece.settings), piece.kind)


def _samples(job: Job) -> None:
    from importlib import import_module

    lab = import_module("sightline.lab.samples")
    told = job.settings()
    with _file(told["scenes"]) as path:
        config = load_config(lab.ScenesConfig, path)
    lab.write_scenes(config, told["split"], told["count"], job.out)


def _curated(job: Job) -> None:
    from sightline.pairs.curation.config import CurateConfig
    from sightline.pairs.curation.run import Curation, curate

    with _file(job.settings()["curate"]) as path:
        config = load_config(CurateConfig, path)
    curate(Curation(job.inputs["samples"], config, seed=job.piece.seed), job.out)


def _matched(job: Job) -> None:
    from sightline.pairs.matching.steps import STEPS

    told = job.settings()
    step = STEPS[told["match"]]
    with _file(told["config"]) as path:
        config = load_config(step.config, path)
    step.run(job.place, config, job.piece.seed, job.out, None)


def _built(job: Job) -> None:
    from sightline.pairs.build import Plan, build_dataset
    from sightline.pairs.registry import get_builder

    builder = get_builder(job.piece.settings["builder"])
    with _file(job.settings()["config"]) as path:
        config = load_config(builder.config, path)
    model = job.model if builder.needs_model else None
    build_dataset(Plan(builder, config, job.piece.seed), model, job.inputs["samples"], job.out)


def _train(job: Job) -> None:
    from sightline.train.config import TrainConfig
    from sightline.train.run import train

    with _file(job.settings()["config"]) as path:
        config = load_config(TrainConfig, path)
    pairs, samples = job.inputs.get("pairs"), job.inputs.get("samples")
    train(job.model, pairs, job.out, config, job.piece.seed, samples)


def _eval(job: Job) -> None:
    from sightline.evals.run import EvalConfig, EvalRuntime, Files, evaluate

    config = EvalConfig(**job.settings())
    runtime = EvalRuntime(batch_size=job.places.batch_size)
    where = Files(data=job.data, images=job.places.images)
    evaluate(job.model, job.out, config, adapter=job.adapter, files=where, runtime=runtime)


def _fetch(job: Job) -> None:
    from sightline.data.fetching import FetchConfig, fetch
    from sightline.data.packages import PackageConfig, fetch_package

    told = job.settings()
    if told["type"] == "package":
        fetch_package(PackageConfig(**told), job.out)
    else:
        fetch(FetchConfig(**told), job.out)


def _import(job: Job) -> None:
    from sightline.data.formats.drafts import ReadConfig
    from sightline.data.formats.importing import Request, import_layout

    told = job.settings()
    with _file(told["config"]) as path:
        read = load_config(ReadConfig, path)
    images = None if told["images"] is None else Path(told["images"])
    import_layout(Request(job.files, told["layout"], images, skip_bad=told["skip_bad"], read=read), job.out)


def _take(job: Job) -> None:
    from sightline.pairs.take import TakeConfig, take_rows

    take_rows(job.inputs["source"], TakeConfig(**job.settings()["take"]), job.out)


def _average(job: Job) -> None:
    from sightline.pairs.average import average_datasets

    average_datasets(job.inputs["first"], job.inputs["second"], job.out)


_DOERS = {
    "fetch": _fetch,
    "samples": _samples,
    "curate": _curated,
    "match": _matched,
    "layout": _import,
    "take": _take,
    "average": _average,
    "builder": _built,
    "train": _train,
    "eval": _eval,
}


@contextmanager
def _file(settings: Mapping[str, Any]) -> Iterator[Path]:
    """The settings as a YAML file, so that a mistake in them is told as in any config."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
        yield path
