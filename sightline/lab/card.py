"""The measured model card of the lab's base VLM: perception, fluency, hallucination, and its language prior.

`sightline lab measure` runs it, and the committed model card is its output. The benchmarks are those of `benches`;
`Probe` tests the vision tower. Nothing here decides a setting.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionModel

from sightline.errors import InputError
from sightline.evals.benchmark import Metric, mean
from sightline.evals.directory import read_result
from sightline.evals.run import EvalConfig, EvalRuntime, evaluate
from sightline.evals.statistics import estimate
from sightline.lab.chair import DESCRIBE
from sightline.lab.drawing import render
from sightline.lab.language import Speaker, object_groups
from sightline.lab.parser import parse_claims
from sightline.lab.recipe.optimize import fast_format
from sightline.lab.recipe.perception import normalize, patch_features
from sightline.lab.words import KINDS, THEME_OF, THEMES, WorldConfig
from sightline.lab.world import IMAGE_SIZE, Scene, sample_scene, scene_rng
from sightline.lab.world import scenes as sample_scenes
from sightline.models.opening import open_model
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.sampler import generate, image_token_count
from sightline.models.vlm import VLM
from sightline.records import Estimate, Score, read_rows, write_json
from sightline.records.rows import Answer

_BATCH = 64  # scenes per step


@dataclass(frozen=True)
class ProbeResult:
    """Per scene: number of kinds found correctly, reported, and present."""

    found: np.ndarray
    reported: np.ndarray
    present: np.ndarray


class Probe(nn.Module):
    """Kind scores of each patch (one hidden layer), pooled over patches by a smooth maximum with a learned scale."""

    def __init__(self, features: Tensor, hidden: int = 192) -> None:
        """`features` [scene, patch, width] are the training features, for their mean and spread."""
        super().__init__()
        width = features.shape[-1]
        self.mean = nn.Parameter(features.mean((0, 1)), requires_grad=False)
        self.spread = nn.Parameter(features.std((0, 1)), requires_grad=False)
        self.patch = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, len(KINDS)))
        self.pool = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.zeros(len(KINDS)))

    def forward(self, features: Tensor) -> Tensor:
        """[scene, patch, width] -> logits [scene, kind]."""
        scale = self.pool.abs() + 1e-3
        scores = self.patch((features - self.mean) / self.spread)
        return torch.logsumexp(scores * scale, dim=1) / scale + self.bias


@torch.no_grad()
def encode_scenes(tower: CLIPVisionModel, scenes: Sequence[Scene]) -> Tensor:
    """Frozen patch features of scenes, float32 [scene, patch, width]."""
    chunks = []
    for start in range(0, len(scenes), 64):
        pixels = np.stack([np.asarray(render(scene)) for scene in scenes[start : start + 64]])
        with fast_format(tower.device):
            chunks.append(patch_features(tower, normalize(pixels)).float())
    return torch.cat(chunks)


def present_kinds(scenes: Sequence[Scene]) -> Tensor:
    """float32 [scene, kind], 1 where the kind is present."""
    return torch.tensor([[float(kind in scene.kinds) for kind in KINDS] for scene in scenes])


def train_probe(features: Tensor, present: Tensor, epochs: int = 12, seed: int = 0) -> Probe:
    """Fit the probe by binary cross-entropy."""
    torch.manual_seed(seed)
    probe = Probe(features)
    optimizer = torch.optim.AdamW([p for p in probe.parameters() if p.requires_grad], lr=2e-3, weight_decay=1e-2)
    batches = math.ceil(len(features) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=epochs * batches)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(features), generator=generator).split(_BATCH):
            loss = F.binary_cross_entropy_with_logits(probe(features[rows]), present[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return probe.eval()


@torch.no_grad()
def measure(probe: Probe, features: Tensor, present: Tensor, threshold: float = 0.5) -> ProbeResult:
    """Count, per scene, the kinds the probe reports with a probability over `threshold`."""
    reported = (probe(features).sigmoid() > threshold).float()
    return ProbeResult(
        found=(reported * present).sum(1).numpy(), reported=reported.sum(1).numpy(), present=present.sum(1).numpy()
    )


BENCHMARKS = ("lab-chair", "lab-pope-random", "lab-pope-popular", "lab-pope-adversarial", "lab-vqa")
_PROBE_SCENES = 6000
_CORPUS_SCENES = 20_000
_SAMPLING = Sampling(max_new_tokens=160, temperature=0.8)

Numbers = dict[str, dict[str, Estimate]]


def measure_base(model: Path, out: Path, count: int) -> Numbers:
    """Measure `model` on `count` scenes of each kind; card.json and README.md go into `out`.

    Raises:
        InputError: the model cannot be opened or is not a lab model, or `out` holds other files.
    """
    if (out / "README.md").exists() and not (out / "card.json").exists():
        raise InputError(f"output directory {out} has an unrelated README.md; choose another --out")
    vlm = open_model(model)
    side = vlm.base.config.vision_config.image_size
    if side != IMAGE_SIZE:
        raise InputError(
            f"{model} takes pictures of {side} pixels, but the lab's have {IMAGE_SIZE}; use `sightline eval`"
        )
    names = (*BENCHMARKS, *(f"{name}-counter" for name in BENCHMARKS))
    evaluate(
        model,
        out / "eval",
        EvalConfig(benchmarks=names, limit=count, autocast=True),
        runtime=EvalRuntime(batch_size=64),
    )
    numbers: Numbers = {name: dict(read_result(out / "eval", name).estimates) for name in names}
    world = WorldConfig()
    known = _bigrams(world)
    for name in ("lab-chair", "lab-chair-counter"):
        answers = list(read_rows(out / "eval" / name / "answers.jsonl", Answer))
        numbers[name] |= _fluency([a.text for a in answers], known)
    numbers |= _perception(vlm, world, count)
    examples: dict[str, list[str]] = {}
    for name, texts in _describe_without_picture(vlm, world, out, min(count, 300)):
        numbers[name] = _fluency(texts, known) | _plausibility(texts)
        examples[name] = texts[:4]
    plain = {part: {k: v.model_dump(mode="json") for k, v in rows.items()} for part, rows in numbers.items()}
    write_json(out / "card.json", {"scenes": count, "numbers": plain, "examples": examples})
    (out / "README.md").write_text(_card(numbers, examples, count), encoding="utf-8")
    return numbers


def _perception(vlm: VLM, world: WorldConfig, count: int) -> Numbers:
    """Probe the frozen features: train on unbiased scenes, test on natural and counter-prior ones."""
    tower = vlm.base.model.vision_tower
    seen = list(sample_scenes(world, "probe", _PROBE_SCENES))
    probe = train_probe(encode_scenes(tower, seen), present_kinds(seen))
    metrics = {
        "recall": Metric(
            label="Objects the probe finds", numerator={"found": 1}, denominator={"present": 1}, higher_is_better=True
        ),
        "precision": Metric(
            label="Findings that are there", numerator={"found": 1}, denominator={"reported": 1}, higher_is_better=True
        ),
    }
    numbers: Numbers = {}
    for split in ("test", "counter-test"):
        scenes = list(sample_scenes(world, split, count))
        result = measure(probe, encode_scenes(tower, scenes), present_kinds(scenes))
        rows = zip(scenes, result.found, result.reported, result.present, strict=True)
        scores = [_score(s.id, found=f, reported=r, present=p) for s, f, r, p in rows]
        numbers[f"probe-{split}"] = estimate(scores, metrics)
    return numbers


def _describe_without_picture(vlm: VLM, world: WorldConfig, out: Path, count: int) -> Iterator[tuple[str, list[str]]]:
    """Sample descriptions of blank pictures, and of real ones with every image token hidden."""
    for name, picture, hide in (("blank", _blank, False), ("hidden", render, True)):
        requests = []
        for index in range(count):
            path = out / name / f"{index:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(sample_scene(world, "test", index)).save(path)
            prefix = Prefix((path,), DESCRIBE)
            hidden = frozenset(range(image_token_count(vlm, prefix))) if hide else frozenset[int]()
            requests.append(GenerateRequest(prefix, hidden=hidden, seed=index))
        yield name, [generation.text for generation in generate(vlm, requests, _SAMPLING, batch_size=64)]


def _blank(scene: Scene) -> Image.Image:
    """One uniform color, drawn per scene."""
    color = np.random.default_rng(scene.look).integers(60, 230, size=3)
    return Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), tuple(int(v) for v in color))


def _bigrams(world: WorldConfig) -> frozenset[tuple[str, str]]:
    """Every pair of neighboring words in true descriptions of training scenes."""
    found: set[tuple[str, str]] = set()
    for scene in sample_scenes(world, "train", _CORPUS_SCENES):
        text = Speaker(scene_rng(world, scene.split, scene.index, purpose=8)).describe(
            scene.theme, object_groups(scene)
        )
        found.update(_pairs(text))
    return frozenset(found)


def _pairs(text: str) -> list[tuple[str, str]]:
    words = text.lower().replace(".", " .").replace(",", " ,").split()
    return list(itertools.pairwise(words))


def _fluency(texts: Sequence[str], known: frozenset[tuple[str, str]]) -> dict[str, Estimate]:
    """Fluency: two to five complete sentences, only known word pairs, and no kind introduced twice."""
    metrics = {
        "fluent": mean("fluent", "Descriptions that are fluent", higher_is_better=True),
        "known_bigrams": Metric(
            label="Neighboring words that occur in true descriptions",
            numerator={"known": 1},
            denominator={"pairs": 1},
            higher_is_better=True,
        ),
    }
    scores = []
    for number, text in enumerate(texts):
        pairs = _pairs(text)
        hits = sum(pair in known for pair in pairs)
        introduced = [m.kind for m in parse_claims(text).mentions if m.count is not None]
        whole = text.endswith(".") and 2 <= text.count(".") <= 5
        fluent = whole and hits == len(pairs) and len(introduced) == len(set(introduced))
        scores.append(_score(str(number), fluent=float(fluent), known=hits, pairs=len(pairs)))
    return estimate(scores, metrics)


def _plausibility(texts: Sequence[str]) -> dict[str, Estimate]:
    """Plausibility without a picture: how often objects are named, and how far they share one theme."""
    metrics = {
        "names_objects": mean("names", "Descriptions that name an object", higher_is_better=None),
        "one_theme": Metric(
            label="Named kinds that are of the description's main theme",
            numerator={"of_main": 1},
            denominator={"kinds": 1},
            higher_is_better=None,
        ),
    }
    scores = []
    for number, text in enumerate(texts):
        kinds = {m.kind for m in parse_claims(text).mentions if not m.negated}
        of_main = max((sum(THEME_OF[k] == theme for k in kinds) for theme in THEMES), default=0)
        scores.append(_score(str(number), names=float(bool(kinds)), of_main=of_main, kinds=len(kinds)))
    return estimate(scores, metrics)


def _score(name: str, **values: float) -> Score:
    return Score(sample_id=name, cluster=name, values={k: float(v) for k, v in values.items()})


def _card(numbers: Mapping[str, Mapping[str, Estimate]], examples: Mapping[str, Sequence[str]], count: int) -> str:
    """The model card: description, purpose, and every number with its interval."""
    lines = [
        _CARD_HEAD.format(count=count),
        "| measured | number | value | 95 % interval | n |",
        "| --- | --- | --- | --- | --- |",
    ]
    for part, rows in numbers.items():
        for name, found in rows.items():
            value = "-" if found.value is None else f"{found.value:.3f}"
            interval = "-" if found.ci95 is None else f"{found.ci95[0]:.3f} to {found.ci95[1]:.3f}"
            lines.append(f"| {part} | {name} | {value} | {interval} | {found.n} |")
    for name, texts in examples.items():
        lines += ["", f"Examples, {name} picture (temperature {_SAMPLING.temperature}):", ""]
        lines += [f"- {text}" for text in texts]
    return "\n".join(lines) + "\n"


_CARD_HEAD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# The lab's base VLM

A small LLaVA (CLIP vision tower, two-layer projector, Llama) that describes drawn scenes of Sightline's lab and answers
questions about them. It was made by `sightline lab train-base` from seed, on the lab's own pictures and text, and it
hallucinates because of its data: scenes whose themes make objects co-occur, and references that are wrong now and then
(`recipe.json` has every number). It is of no use outside the lab.

Measured by `sightline lab measure` on {count} held-out scenes of each kind. `-counter` are scenes that break the
co-occurrence; `probe-*` is a small probe on the frozen vision features, trained on unbiased scenes; `blank` are
pictures of one even color, `hidden` real pictures with every image token hidden from attention.
"""
