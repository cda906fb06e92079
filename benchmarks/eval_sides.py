"""The sides of `eval_sharing.py`, each in a fresh process: lab-POPE answered together, apart, or one by one.

The pictures are drawn, torch is imported and the model is opened before the clock starts; pictures are opened, encoded
and passed through the tower while it runs.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import LAB

from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.registry import get_benchmark
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Sampling, make_prefix
from sightline.models.sampler import generate
from sightline.models.tensor_cache import open_cache
from sightline.records import Sample


def answer(folder: Path, scenes: int, batch: int, side: str) -> dict[str, Any]:
    """Seconds and answers of one side, the answers in the order of the benchmark."""
    benchmark = get_benchmark("lab-pope-random", BenchmarkOptions(folder, limit=scenes))
    samples = list(benchmark.samples())
    order = _apart(samples) if side == "apart" else list(range(len(samples)))
    size = 1 if side == "one by one" else batch
    vlm, sampling = load_vlm(LAB / "base", cache=open_cache()), Sampling(benchmark.max_new_tokens)
    texts: dict[int, str] = {}
    started = time.perf_counter()
    for start in range(0, len(order), size):
        places = order[start : start + size]
        requests = [GenerateRequest(make_prefix(samples[place], benchmark.folder)) for place in places]
        generations = generate(vlm, requests, sampling, batch_size=size)
        texts.update(zip(places, (generation.text for generation in generations), strict=True))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "questions": len(texts), "texts": [texts[place] for place in range(len(texts))]}


def _apart(samples: list[Sample]) -> list[int]:
    """The first question on every picture, then the second on every one."""
    counts, turns = Counter[str](), []
    for sample in samples:
        turns.append(counts[sample.cluster])
        counts[sample.cluster] += 1
    return sorted(range(len(samples)), key=turns.__getitem__)


if __name__ == "__main__":
    request, written = map(Path, sys.argv[1:])
    job = json.loads(request.read_text())
    written.write_text(json.dumps(answer(Path(job.pop("folder")), **job)))
