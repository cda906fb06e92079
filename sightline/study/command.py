"""The command line that does a piece of work by hand: what the ledger shows, and what `--launch` writes into scripts.

Nothing runs here. It says exactly what `work` does, so that a directory which a command has filled is found done.
"""

import shlex
from collections.abc import Callable
from typing import Any

import yaml

from sightline.pairs.registry import get_entry
from sightline.study.work import Job, sort_of


def command_of(job: Job) -> str:
    """The command as one line of shell."""
    return shlex.join(["sightline", *words_of(job)])


def words_of(job: Job) -> list[str]:
    """The command's words after `sightline`, its config in the place of a file."""
    return [*_WORDS[sort_of(job.piece)](job), "--out", str(job.out)]


def _fetch(job: Job) -> list[str]:
    told = job.settings()
    if told["type"] == "package":
        inside = ["--inside", told["inside"]] if told["inside"] is not None else []
        return ["fetch", "package", told["package"], *inside, *(["--source"] if told["source"] else [])]
    return ["fetch", told["type"], told["hub"], *(["--revision", told["revision"]] if told["revision"] else [])]


def _import(job: Job) -> list[str]:
    told = job.settings()
    images = ["--images", told["images"]] if told["images"] is not None else []
    skip = ["--skip-bad"] if told["skip_bad"] else []
    return ["import", told["layout"], str(job.files), *images, *skip, *_sets(told["config"])]


def _take(job: Job) -> list[str]:
    told = job.settings()["take"]
    seed = ["--random-seed", str(told["random_seed"])] if told["random_seed"] is not None else []
    return ["pairs", "take", str(job.inputs["source"]), "--count", str(told["count"]), *seed]


def _average(job: Job) -> list[str]:
    return ["pairs", "average", str(job.inputs["first"]), str(job.inputs["second"])]


def _samples(job: Job) -> list[str]:
    settings = job.settings()
    told = ["lab", "scenes", "--split", settings["split"], "--count", str(settings["count"])]
    return told + _sets(settings["scenes"])


def _curated(job: Job) -> list[str]:
    told = ["curate", str(job.inputs["samples"]), "--seed", str(job.piece.seed)]
    return told + _sets(job.settings()["curate"])


def _matched(job: Job) -> list[str]:
    settings = job.settings()
    return ["match", settings["match"], str(job.place), "--seed", str(job.piece.seed), *_sets(settings["config"])]


def _built(job: Job) -> list[str]:
    settings = job.settings()
    builder = settings["builder"]
    told = ["pairs", builder]
    told += ["--model", str(job.model)] if get_entry(builder).needs_model else []
    told += ["--seed", str(job.piece.seed), "--samples", str(job.inputs["samples"])]
    return told + _sets(settings["config"])


def _train(job: Job) -> list[str]:
    told = ["train", "--model", str(job.model), "--seed", str(job.piece.seed)]
    for role in ("pairs", "samples"):
        told += [f"--{role}", str(job.inputs[role])] if role in job.inputs else []
    return told + _sets(job.settings()["config"])


def _eval(job: Job) -> list[str]:
    settings, places = job.settings(), job.places
    told = ["eval", "--model", str(job.model), "--bench", ",".join(settings.pop("benchmarks"))]
    told += ["--adapter", str(job.adapter)] if job.adapter is not None else []
    told += ["--data", str(job.data), "--batch-size", str(places.batch_size)]
    told += ["--images", str(places.images)] if places.images is not None else []
    return told + _sets({key: value for key, value in settings.items() if value is not None})


_WORDS: dict[str, Callable[[Job], list[str]]] = {
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


def _sets(keys: dict[str, Any]) -> list[str]:
    return [word for key, value in keys.items() for word in ("--set", f"{key}={_inline(value)}")]


def _inline(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf")).removesuffix("\n...\n").strip()
