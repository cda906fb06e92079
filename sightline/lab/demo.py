"""The demo: the whole pipeline on the embedded lab (scenes, BDHS pairs, DPO, evaluation of both models, report).

It only calls stages that also have their own commands. Complete directories are skipped, so an interrupted demo
resumes.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from sightline.builders.bdhs import BDHS, BDHSConfig
from sightline.builders.build import BuildPlan, build_dataset
from sightline.config import load_config
from sightline.data.terminal import Progress
from sightline.evals.run import EvalConfig, EvalRuntime, Files, evaluate
from sightline.lab import BASE, CONFIGS
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.report.comparison import Results
from sightline.report.page import write_report
from sightline.train.config import TrainConfig
from sightline.train.run import ADAPTER, train

NATURAL = ("lab-chair", "lab-pope-random", "lab-pope-popular", "lab-pope-adversarial", "lab-vqa")
BENCHMARKS = tuple(f"{name}{suffix}" for suffix in ("", "-counter") for name in NATURAL)


def run_demo(
    out: Path,
    *,
    pairs: int,
    scenes: int,
    seeds: tuple[int, ...],
    bar: Callable[[str], AbstractContextManager[Progress]],
) -> Results:
    """Run every incomplete stage in `out`, once per seed of pairs and training; returns the report's results.

    `pairs` is the number of preference scenes, `scenes` the number of test scenes of each kind; `bar(label)` opens a
    progress bar. The base model is evaluated once, since its answers are greedy.
    """
    with bar("preference scenes") as progress:
        write_scenes(ScenesConfig(), "preference", pairs, out / "samples", progress)
    bdhs = load_config(BDHSConfig, CONFIGS / "bdhs.yaml", ())
    dpo = load_config(TrainConfig, CONFIGS / "dpo.yaml", ())
    for seed in seeds:
        pairs_dir = _seed_folder(out, "pairs", seed)
        with bar(f"BDHS pairs, seed {seed}") as progress:
            build_dataset(BuildPlan(BDHS, bdhs, seed), BASE, out / "samples", pairs_dir, progress)
        train(BASE, pairs_dir, _seed_folder(out, "train", seed), dpo, seed)
    eval_config = EvalConfig(benchmarks=BENCHMARKS, limit=scenes, autocast=True)
    runtime = EvalRuntime(batch_size=64)
    evaluate(BASE, out / "eval-base", eval_config, files=Files(out / "test"), runtime=runtime)
    for seed in seeds:
        adapter = _seed_folder(out, "train", seed) / ADAPTER
        evaluate(
            BASE,
            _seed_folder(out, "eval-aligned", seed),
            eval_config,
            adapter=adapter,
            files=Files(out / "test"),
            runtime=runtime,
        )
    return write_report(
        out,
        base=out / "eval-base",
        aligned=[_seed_folder(out, "eval-aligned", seed) for seed in seeds],
        trainings=[_seed_folder(out, "train", seed) for seed in seeds],
        pairs=_seed_folder(out, "pairs", seeds[0]),
    )


def _seed_folder(out: Path, stage: str, seed: int) -> Path:
    return out / f"{stage}-{seed}"
