"""A benchmark of drawn shapes with known truth: small enough for tests, real in every part."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sightline.evals.benchmark import AnyMetric, Benchmark, BenchmarkOptions, Metric, mean
from sightline.evals.registry import BenchmarkEntry
from sightline.evals.yes_no import YES_NO_METRICS, score_yes_no
from sightline.records.rows import Answer, Sample, Score

COLORS = {"red": (204, 62, 54), "blue": (52, 98, 190), "green": (66, 150, 84), "yellow": (235, 196, 66)}
SHAPES = ("circle", "square", "triangle")
MENTION = re.compile(rf"\b(?:{'|'.join(COLORS)}) ({'|'.join(SHAPES)})s?\b")


def draw(things: list[tuple[str, str]], path: Path) -> None:
    """Each thing in a column of a 96 x 72 picture."""
    picture = Image.new("RGB", (96, 72), (240, 236, 226))
    pen = ImageDraw.Draw(picture)
    for place, (color, shape) in enumerate(things):
        left, top = 6 + 30 * place, 24
        box = (left, top, left + 24, top + 24)
        if shape == "circle":
            pen.ellipse(box, fill=COLORS[color])
        elif shape == "square":
            pen.rectangle(box, fill=COLORS[color])
        else:
            pen.polygon([(left, top + 24), (left + 24, top + 24), (left + 12, top)], fill=COLORS[color])
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


@dataclass(frozen=True)
class ShapeBenchmark:
    """`count` pictures of two shapes; described, or asked about with yes/no questions, one present and one absent."""

    name: str
    folder: Path
    count: int = 12
    max_new_tokens: int = 12

    @property
    def asks(self) -> bool:
        return self.name.startswith("shapes-ask")

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        if self.asks:
            return YES_NO_METRICS
        return {
            "hallucinating": mean(
                "hallucinates", "Descriptions with an absent shape", higher_is_better=False, primary=True
            ),
            "recall": Metric(
                label="Shapes named", numerator={"found": 1}, denominator={"present": 1}, higher_is_better=True
            ),
        }

    def samples(self) -> Iterator[Sample]:
        rng = np.random.default_rng([len(self.name), 1])
        for index in range(self.count):
            shapes = [str(shape) for shape in rng.choice(SHAPES, size=2, replace=False)]
            things = [(str(rng.choice(list(COLORS))), shape) for shape in shapes]
            image = f"images/{self.name}-{index:03d}.png"
            draw(things, self.folder / image)
            cluster = f"{self.name}-{index:03d}"
            absent = next(shape for shape in SHAPES if shape not in shapes)
            truth = {"things": things}
            if not self.asks:
                yield Sample(id=cluster, images=(image,), prompt="What is there?", cluster=cluster, truth=truth)
                continue
            for shape in (shapes[0], absent):
                yield Sample(
                    id=f"{cluster}/{shape}",
                    images=(image,),
                    prompt=f"Is there a {shape}?",
                    cluster=cluster,
                    truth={**truth, "about": shape},
                )

    def score(self, sample: Sample, answer: Answer) -> Score:
        shapes = {shape for _, shape in sample.truth["things"]}
        if self.asks:
            return score_yes_no(answer, truth=sample.truth["about"] in shapes)
        mentions = list(MENTION.finditer(answer.text))
        absent = [match for match in mentions if match.group(1) not in shapes]
        values: dict[str, float | None] = {
            "hallucinates": float(bool(absent)),
            "found": float(len({match.group(1) for match in mentions} & shapes)),
            "present": float(len(shapes)),
        }
        details = {"hallucinated": [[match.start(), match.end()] for match in absent]}
        return Score(sample_id=sample.id, cluster=sample.cluster, values=values, details=details)


def make_shapes(name: str, options: BenchmarkOptions) -> Benchmark:
    """The benchmark's factory."""
    return ShapeBenchmark(name, options.folder, options.limit or 12)


SHAPES_ENTRY = BenchmarkEntry("tests.evals.shapes:make_shapes", "Drawn shapes.")
