"""Merging of an evaluation's shards; all answers are scored again, without a model.

Shards are contiguous parts of the samples in order. Concatenated, they give the scores and estimates of the undivided
evaluation.
"""

from collections.abc import Sequence
from pathlib import Path

from sightline.config.problems import shorten
from sightline.data.samples import Shard
from sightline.errors import InputError
from sightline.evals.directory import ANSWERS, SAMPLES, relocate_images
from sightline.evals.registry import get_benchmark
from sightline.evals.run import WHOLE, Files, benchmark_options, extra_inputs, recorded_type, score_samples
from sightline.records.manifest import Manifest, Stage, read_manifest
from sightline.records.rows import Answer, Sample
from sightline.records.store import read_rows, write_rows


def merge_evaluations(parts: Sequence[Path], out: Path, files: Files = Files()) -> Manifest:  # noqa: B008 - frozen
    """Merge `parts`, all the shards of an evaluation in any order, into `out`.

    `files` locates the benchmarks' official files, by which the answers are scored again; a judge's replies come from
    its cache.

    Raises:
        InputError: a part is not a finished evaluation, parts differ in more than their shard, or are not all shards.
    """
    ordered, first = _order_shards(parts)
    config = recorded_type(first.config).model_validate({**first.config, "shard": WHOLE})
    benchmarks = [
        get_benchmark(name, benchmark_options(files, parts[0] / "data", config)) for name in config.benchmarks
    ]
    inputs = {f"part_{number}": part for number, part in enumerate(ordered)} | extra_inputs(config, files)
    stage = Stage.open(out, "eval merge", config, inputs, first.seed)
    if stage.done:
        return stage.manifest
    counts, failed = {}, 0
    for benchmark in benchmarks:
        name, folder = benchmark.name, out / benchmark.name
        counts[name] = write_rows(
            folder / SAMPLES,
            (
                relocate_images(sample, part / name, folder)
                for part in ordered
                for sample in read_rows(part / name / SAMPLES, Sample)
            ),
        )
        write_rows(folder / ANSWERS, (row for part in ordered for row in read_rows(part / name / ANSWERS, Answer)))
        failed += score_samples(benchmark, list(benchmark.samples()), out, config, first.seed, print)
    if failed:
        raise InputError(f"{failed} judge calls failed; run the same command again to retry only these")
    warnings = dict.fromkeys(line for part in ordered for line in read_manifest(part).warnings)
    return stage.finish(counts=counts, warnings=tuple(warnings))


def _order_shards(parts: Sequence[Path]) -> tuple[list[Path], Manifest]:
    """The parts by their index, and the manifest of the first."""
    manifests = {part: read_manifest(part) for part in parts}
    first = manifests[parts[0]]
    placed: dict[int, Path] = {}
    for part, manifest in manifests.items():
        if manifest.stage != "eval" or not manifest.complete:
            raise InputError(f"{part} is not a finished evaluation; run `sightline eval` with --shard again")
        for key, value in manifest.config.items():
            if key != "shard" and value != first.config.get(key):
                there = shorten(first.config.get(key))
                raise InputError(f"{part} is of another evaluation: {key} is {shorten(value)}, in {parts[0]} {there}")
        if (manifest.inputs, manifest.seed) != (first.inputs, first.seed):
            raise InputError(f"{part} has another model or seed than {parts[0]}; merge shards of one evaluation")
        placed[Shard.parse(manifest.config["shard"]).index] = part
    count = Shard.parse(first.config["shard"]).count
    if any(Shard.parse(manifest.config["shard"]).count != count for manifest in manifests.values()):
        raise InputError(f"the parts have different numbers of shards; all must have {count}, as {parts[0]} has")
    missing = [f"{index}/{count}" for index in range(count) if index not in placed]
    if missing or len(parts) != count:
        problem = f"shard {missing[0]} is missing" if missing else "a shard is given twice"
        raise InputError(f"{problem}; name each of the {count} shards once")
    return [placed[index] for index in range(count)], first
