"""The stage `sightline match select`: the training rows, and those of a pool that are most similar to errors.

Error-based selection of arXiv 2409.08185: after a validation, for each pair that the model got wrong, the most similar
pairs of a larger, filtered set, in total as many as the original set has; training then continues (`start`), for up to
five rounds in the paper.
"""

from collections import Counter
from pathlib import Path

from pydantic import Field

from sightline.config import Config
from sightline.data.samples import SAMPLES, read_samples, write_samples
from sightline.data.terminal import Progress
from sightline.errors import InputError
from sightline.recipes.matching.entities.pairs import EntityPair, read_pair
from sightline.recipes.matching.samples import TRIGRAMS, cosines, read_pairs, round_robin
from sightline.records import Manifest, Sample, Score, read_rows
from sightline.records.manifest import Stage

SCORES = "scores.jsonl"
_WRONG = ("false_positive", "false_negative", "unparsed")


class SelectConfig(Config):
    """Selection of pairs like those that an evaluation got wrong."""

    errors: Path = Field(description="folder of the benchmark `matching` in an evaluation on validation pairs")
    pool: Path = Field(description="directory of samples to select from")
    count: int | None = Field(default=None, ge=1, description="rows to add; null: as many as there are training rows")
    similarity: str = Field(default=TRIGRAMS, description="trigrams, or sentence-transformers:DIRECTORY")


def select_pairs(place: Path, config: SelectConfig, seed: int, out: Path, progress: Progress | None = None) -> Manifest:
    """Write the samples of `place`, then the selected ones of the pool; nothing is random, so the seed is unused.

    Raises:
        InputError: an evaluation without scores or without errors, or a pool with too few new pairs.
    """
    rows, pool = read_pairs(place), read_pairs(config.pool)
    wrong = read_errors(config.errors)
    had = {sample.id for sample, _ in rows} | {" ".join(pair.texts) for _, pair in rows}
    new = [(sample, pair) for sample, pair in pool if not {sample.id, " ".join(pair.texts)} & had]
    count = config.count or len(rows)
    if len(new) < count:
        raise InputError(f"{config.pool}: {len(new)} pairs are new, but {count} are needed; lower count")
    inputs = {"samples": place, "errors": config.errors / SCORES, "pool": config.pool}
    stage = Stage.open(out, "match select", config, inputs, seed)
    if stage.done:
        return stage.manifest
    places = round_robin(cosines(wrong, [pair for _, pair in new], config.similarity), count)
    if progress is not None:
        progress(count, count)
    chosen: list[Sample] = [new[place][0] for place in places]
    write_samples(out, [*(sample for sample, _ in rows), *chosen])
    matches = sum(new[place][1].match for place in places)
    counts = {"samples": len(rows) + count, "added": count, "added_matches": matches, "errors": len(wrong)}
    return stage.finish(counts=counts)


def read_errors(folder: Path) -> list[EntityPair]:
    """The pairs with a wrong answer under any prompt, those with most wrong answers first, else in their order.

    Raises:
        InputError: no scores of `matching` there, or no error.
    """
    if not (folder / SCORES).is_file():
        raise InputError(f"{folder} has no {SCORES}; give the folder `matching` of an evaluation")
    by_id = {sample.id: read_pair(sample, str(folder / SAMPLES)) for sample in read_samples(folder / SAMPLES)}
    wrong: Counter[str] = Counter()
    for score in read_rows(folder / SCORES, Score):
        if any(score.values.get(name) for name in _WRONG):
            wrong[by_id[score.sample_id].id] += 1
    if not wrong:
        raise InputError(
            f"{folder}: every pair is answered correctly, so there is no error to select by; skip this step"
        )
    pairs = {pair.id: pair for pair in by_id.values()}
    return [pairs[name] for name, _ in wrong.most_common()]
