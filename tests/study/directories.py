"""Directories of finished stages as a real run leaves them, with answers, logs and pairs made up by rule."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from sightline.evals.directory import ANSWERS, REMARKS, SAMPLES, relocate_images
from sightline.evals.run import EvalConfig
from sightline.evals.scoring import score_directory
from sightline.records.manifest import Stage
from sightline.records.rows import Answer, Pair, Sample
from sightline.records.store import append_rows, write_json, write_rows
from sightline.train.log import LOG_NAME, StepRecord
from tests.evals.shapes import COLORS, SHAPES, ShapeBenchmark, draw

BENCHMARKS = ("shapes", "shapes-ask", "shapes-counter", "shapes-ask-counter")
HOSTILE = '<script>alert("x")</script> "><img src=x onerror=alert(1)> `**[a](javascript:1)| {{ 7 * 7 }}'


class AnyConfig(BaseModel):
    """Settings that a manifest shows."""

    rho: float = 0.9
    loss: dict[str, object] = {"name": "dpo", "beta": 0.1}
    note: str = HOSTILE


def evaluation(directory: Path, pictures: Path, wrong: dict[str, float], *, count: int = 60, seed: int = 0) -> Path:
    """An eval directory: `wrong` maps a benchmark to the probability that an answer to it is wrong."""
    stage = Stage.open(directory, "eval", EvalConfig(benchmarks=tuple(wrong), limit=count), {}, 0)
    for name, probability in wrong.items():
        benchmark = ShapeBenchmark(name, pictures, count)
        rng = np.random.default_rng([seed, len(name)])
        samples = list(benchmark.samples())
        answers = []
        for number, sample in enumerate(samples):
            text = say(benchmark, sample, rng.random() < probability, rng)
            if number % 5 == 0:
                text += " " + HOSTILE
            answers.append(
                Answer(sample_id=sample.id, cluster=sample.cluster, text=text, tokens=len(text.split()), finished=True)
            )
        write_rows(directory / name / SAMPLES, [relocate_images(s, pictures, directory / name) for s in samples])
        append_rows(directory / name / ANSWERS, answers)
        score_directory(benchmark, directory, resamples=200)
        remarks = [f"one rule is our own {HOSTILE}", f"{seed} of {count} answers were made up"]
        write_json(directory / name / REMARKS, remarks if name == "shapes" else [])
    stage.finish(dict.fromkeys(wrong, count), {}, {})
    return directory


def say(benchmark: ShapeBenchmark, sample: Sample, wrong: bool, rng: np.random.Generator) -> str:
    """A right or a wrong answer to a sample of the shapes."""
    present = [shape for _, shape in sample.truth["things"]]
    if benchmark.asks:
        return "Yes, there is." if (sample.truth["about"] in present) != wrong else "No, there is none."
    text = " and ".join(f"a {color} {shape}" for color, shape in sample.truth["things"])
    if wrong:
        absent = next(shape for shape in SHAPES if shape not in present)
        text += f", and behind them a {rng.choice(list(COLORS))} {absent}"
    return f"There is {text}. The ground is plain."


def training(directory: Path, *, steps: int = 120, seed: int = 0, config: BaseModel | None = None) -> Path:
    """A train directory whose margin rises while both answers lose probability."""
    stage = Stage.open(directory, "train", config or AnyConfig(), {}, seed)
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(steps):
        gained = 3 * (1 - math.exp(-step / 40))
        margin = gained + 0.25 * float(rng.normal())
        chosen, rejected = -31 - 3 * gained + float(rng.normal()), -38 - 9 * gained + float(rng.normal())
        rows.append(
            StepRecord(
                step=step,
                loss=math.log1p(math.exp(-margin)),
                chosen_reward=-0.3 * gained,
                rejected_reward=-0.3 * gained - margin,
                margin=margin,
                accuracy=min(1.0, 0.5 + gained / 5),
                chosen_logps=chosen,
                rejected_logps=rejected,
                chosen_ref_logps=chosen + 3 * gained,
                rejected_ref_logps=rejected + 9 * gained,
                chosen_tokens=34 + float(rng.normal()),
                rejected_tokens=35 + float(rng.normal()),
                grad_norm=1.0,
                lr=1e-4,
                seconds=0.5,
                pairs=8,
            )
        )
    write_rows(directory / LOG_NAME, rows)
    stage.finish({"pairs": 400, "steps": steps}, {"too_long": 3}, {})
    return directory


def pairs(directory: Path, *, count: int = 30) -> Path:
    """A pairs directory: some pairs are hostile, one has no difference, some pictures are damaged."""
    stage = Stage.open(directory, "pairs-bdhs", AnyConfig(), {}, 0)
    rng = np.random.default_rng(1)
    rows = []
    for index in range(count):
        things = [(str(rng.choice(list(COLORS))), str(shape)) for shape in rng.permutation(SHAPES)[:2]]
        image = f"images/{index:03d}.png"
        draw(things, directory / image)
        chosen = f"There is a {things[0][0]} {things[0][1]}, and a {things[1][0]} {things[1][1]} to its right."
        rejected = chosen.replace(things[1][0], "purple").replace(things[1][1], "hexagon")
        rows.append(
            Pair(
                id=f"train-{index:04d}/bdhs",
                images=(image,),
                prompt=HOSTILE if index % 5 == 1 else "Describe the picture.",
                chosen=f"A square. {HOSTILE}" if index % 5 == 1 else chosen,
                rejected=rejected if index != 4 else chosen,
                builder="bdhs",
                cluster=f"train-{index:04d}",
                provenance={"tries": 1 + index % 3, "similarity": 0.8123, "guided": True, "note": HOSTILE},
            )
        )
    for row in rows[3::7]:
        damaged = directory / row.images[0]
        damaged.write_bytes(damaged.read_bytes()[:60])
    write_rows(directory / "pairs.jsonl", rows)
    stage.finish({"pairs": count}, {"equal": 4}, {})
    return directory


def whole_run(root: Path, seeds: Sequence[int] = (0,), count: int = 60) -> dict[str, Path]:
    """base, aligned-SEED, train-SEED and pairs under `root`; alignment quarters the errors of descriptions."""
    pictures = root / "pictures"
    wrong = {"shapes": 0.45, "shapes-ask": 0.2, "shapes-counter": 0.7, "shapes-ask-counter": 0.35}
    stages = {"base": evaluation(root / "base", pictures, wrong, count=count), "pairs": pairs(root / "pairs")}
    for seed in seeds:
        fewer = {name: share / 4 if "ask" not in name else share for name, share in wrong.items()}
        stages[f"aligned-{seed}"] = evaluation(root / f"aligned-{seed}", pictures, fewer, count=count, seed=seed + 1)
        stages[f"train-{seed}"] = training(root / f"train-{seed}", seed=seed)
    return stages
