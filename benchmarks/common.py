"""Shared code of the benchmarks: options, fresh processes, medians, versions, and the one JSON object at the end.

Nothing heavy is imported here: a child process starts with its parent's peak of resident memory, so the parent must
stay smaller than any child. What runs in the children is `sides`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LAB = HERE.parent / "sightline" / "lab"
PACKAGES = ("sightline", "trl", "torch", "transformers", "peft", "accelerate", "datasets")


@dataclass(frozen=True)
class Job:
    """One training run of one side, or the preparation of its material; both sides share all settings that matter.

    `folder` holds `model`, `pairs` and `adapter` (the initial LoRA weights); everything a run writes goes to `out`.
    """

    side: str
    folder: str
    kind: str
    size: str
    out: str = ""
    pairs: int = 8
    batch: int = 4
    epochs: int = 1
    dtype: str = "float32"
    device: str = "cpu"
    lr: float = 1e-4
    beta: float = 0.1
    rank: int = 16
    seed: int = 0
    trl_gradient_checkpointing: bool = True
    count_flops: bool = False


def options(text: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line")
    parser.add_argument("--tiny", action="store_true", help="a model that takes seconds, for tests only")
    parser.add_argument("--threads", type=int, default=defaults.get("threads", 2))
    parser.add_argument("--repeat", type=int, default=defaults.get("repeat", 1), help="runs of each side; medians")
    return parser


def training_options(text: str | None, kinds: Iterable[str], **defaults: Any) -> argparse.ArgumentParser:
    """The options of the benchmarks that train."""
    parser = options(text, **defaults)
    parser.add_argument("--model", choices=list(kinds), default=next(iter(kinds)))
    parser.add_argument("--steps", type=int, default=defaults.get("steps", 6), help="optimizer steps of one epoch")
    parser.add_argument("--batch", type=int, default=defaults.get("batch", 4), help="pairs per step")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default=defaults.get("dtype", "float32"))
    parser.add_argument("--lr", type=float, default=Job.lr)
    return parser


def first_job(args: argparse.Namespace, folder: str, **more: Any) -> Job:
    """The job that prepares model, pairs and initial adapter, from the options of `training_options`."""
    known = {"kind": args.model, "size": "small", "pairs": args.steps * args.batch, "batch": args.batch}
    settings = {**known, "dtype": args.dtype, "lr": args.lr, **more}
    return Job(side="make", folder=folder, **(settings | {"size": "tiny"} if args.tiny else settings))


class Runs:
    """A temporary folder in which child processes run one by one, each with empty caches."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._holder = tempfile.TemporaryDirectory(prefix="sightline-bench-", ignore_cleanup_errors=True)
        self._number = 0

    def __enter__(self) -> "Runs":
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.cleanup()

    @property
    def folder(self) -> str:
        """The children's working folder."""
        return self._holder.name

    def run(self, job: Job, **changes: Any) -> dict[str, Any]:
        """Run `job`, with changes, in a fresh process of `sides`; returns its result."""
        self._number += 1
        changed = replace(job, out=f"{self.folder}/run-{self._number}", **changes)
        began = time.monotonic()
        answer = self.child("sides.py", asdict(changed))
        # A run that is cut off has shown its progress.
        note = f"{changed.side}, {changed.epochs} epochs: {time.monotonic() - began:.0f} s with start-up"
        print(note, file=sys.stderr, flush=True)
        return answer

    def child(self, script: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run `script` on a JSON file; the answer is another JSON file, unaffected by printed output."""
        own = Path(tempfile.mkdtemp(dir=self.folder))
        (own / "request.json").write_text(json.dumps(request))
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self._threads),
            "MKL_NUM_THREADS": str(self._threads),
            "SIGHTLINE_CACHE": str(own / "cache"),
            "HF_DATASETS_CACHE": str(own / "datasets"),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [sys.executable, str(HERE / script), str(own / "request.json"), str(own / "answer.json")]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode != 0:
            sys.exit(f"{script} failed on {dict(request)}:\n{done.stdout.decode(errors='replace')[-6000:]}")
        answer: dict[str, Any] = json.loads((own / "answer.json").read_text())
        return answer


def median(values: Iterable[float]) -> float:
    """The median as a plain float."""
    return float(statistics.median(values))


def versions() -> dict[str, str]:
    """Versions of the compared packages, without those not installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def has_trl() -> bool:
    """Whether TRL is installed: it comes with the extra `[bench]`."""
    return "trl" in versions()


def report(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the numbers, and with `as_json` the whole result as the last line."""
    for key, value in result.items():
        print(f"{key:>28}: {_plain(value)}")
    if as_json:
        print(json.dumps(result))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return " ".join(_plain(inner) for inner in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
