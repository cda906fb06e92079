"""How a piece of work is done: by the same functions that the commands call, in the piece's own directory.

Rooms that need torch are imported where a piece is done and not before, so that plans and reports start at once. Which
pieces there are is `plan`.
"""

import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from sightline.config import load_config
from sightline.records.manifest import Manifest, read_manifest
from sightline.study.plan import Piece

ADAPTER = "adapter"
C = TypeVar("C", bound=BaseModel)
_ROLE = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True)
class Job:
    """A piece with everything it needs to be done in another process: its directory, those of its inputs, the model."""

    piece: Piece
    out: Path
    inputs: Mapping[str, Path]
    model: Path
    data: Path
    batch_size: int

    def settings(self) -> dict[str, Any]:
        """The piece's settings with the directories in place."""

        def place(role: str) -> str:
            return str(self.inputs[role] / ADAPTER if role.startswith("adapter.") else self.inputs[role])

        def walk(value: Any) -> Any:
            if isinstance(value, str):
                return _ROLE.sub(lambda found: place(found[1]), value)
            if isinstance(value, Mapping):
                return {key: walk(inner) for key, inner in value.items()}
            return [walk(inner) for inner in value] if isinstance(value, list) else value

        made: dict[str, Any] = walk(self.piece.settings)
        return made


def do(job: Job) -> Manifest:
    """Do a piece, or find it done; the manifest of its directory."""
    _DOERS[job.piece.kind](job)
    return read_manifest(job.out)


def command_of(job: Job) -> str:
    """The command that does the same by hand, its config in place of a file."""
    settings, piece = job.settings(), job.piece
    if piece.kind == "samples":
        told = ["lab", "scenes", "--split", settings["split"], "--count", str(settings["count"])]
        keys = settings["scenes"]
    elif piece.kind == "eval":
        told = ["eval", "--model", str(job.model), "--bench", ",".join(settings["benchmarks"])]
        told += ["--adapter", str(job.inputs["train"] / ADAPTER)] if "train" in job.inputs else []
        keys = {key: value for key, value in settings.items() if key != "benchmarks" and value is not None}
    else:
        told = ["train"] if piece.kind == "train" else ["pairs", settings["builder"]]
        told += ["--model", str(job.model)] if piece.kind == "train" or _builder(job).needs_model else []
        told += ["--seed", str(piece.seed)]
        for role in ("pairs", "samples"):
            told += [f"--{role}", str(job.inputs[role])] if role in job.inputs else []
        keys = settings["config"]
    sets = [f"--set {shlex.quote(f'{key}={_inline(value)}')}" for key, value in keys.items()]
    return " ".join(["sightline", *map(shlex.quote, told), "--out", shlex.quote(str(job.out)), *sets])


def _inline(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def _samples(job: Job) -> None:
    from importlib import import_module

    lab = import_module("sightline.lab.samples")
    told = job.settings()
    with _file(told["scenes"]) as path:
        config = load_config(lab.ScenesConfig, path)
    lab.write_scenes(config, told["split"], told["count"], job.out)


def _pairs(job: Job) -> None:
    from sightline.pairs.build import Plan, build_dataset

    builder = _builder(job)
    with _file(job.settings()["config"]) as path:
        config = load_config(builder.config, path)
    model = job.model if builder.needs_model else None
    build_dataset(Plan(builder, config, job.piece.seed), model, job.inputs["samples"], job.out)


def _builder(job: Job) -> Any:
    from sightline.pairs.registry import get_builder

    return get_builder(job.piece.settings["builder"])


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
    adapter = job.inputs["train"] / ADAPTER if "train" in job.inputs else None
    runtime = EvalRuntime(batch_size=job.batch_size)
    evaluate(job.model, job.out, config, adapter=adapter, files=Files(data=job.data), runtime=runtime)


_DOERS = {"samples": _samples, "pairs": _pairs, "train": _train, "eval": _eval}


@contextmanager
def _file(settings: Mapping[str, Any]) -> Iterator[Path]:
    """The settings as a YAML file, so that a mistake in them is told as in any config."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(yaml.safe_dump(dict(settings), sort_keys=False), encoding="utf-8")
        yield path
