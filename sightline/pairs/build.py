"""The stage around a builder: samples directory in, pair dataset out, resumable row by row, with a manifest.

A builder yields pairs; this drops and counts those that teach nothing, keeps what is done on disk, and says in the
manifest what it cost. How pairs are made is the builder's, how they are stored is `data.preference_dataset`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from sightline.data.images import adopt_image, open_image
from sightline.data.preference_dataset import PAIRS, write_preference_dataset
from sightline.data.progress import Progress, counted
from sightline.data.samples import read_samples, samples_file
from sightline.errors import InputError
from sightline.models.loading import load_vlm
from sightline.models.tensor_cache import open_cache
from sightline.pairs.bdhs import BUILDER, BDHSConfig, build_bdhs, fits
from sightline.records import Pair, append_rows, read_rows, sorted_rows, write_rows
from sightline.records.manifest import MANIFEST, Manifest, Stage

_BUILT = "work/built.jsonl"
_ROWS_AT_ONCE = 32  # pairs between two writes; a kill loses at most so many


def build_bdhs_dataset(
    model: Path,
    samples: Path,
    out: Path,
    config: BDHSConfig,
    seed: int,
    progress: Progress | None = None,
) -> Manifest:
    """Run BDHS over a samples directory or file; `progress(done, total)` is told as rows finish.

    Raises:
        InputError: what the stage, the samples or the model refuse, or no pair at all was left.
    """
    # Rows, images and model are checked before the directory is claimed: after a mistake the same --out can be given.
    is_new = not (out / MANIFEST).exists()
    total = _count(samples, decode=is_new)
    opened = load_vlm(model, cache=open_cache()) if is_new else None
    stage = Stage.open(out, f"pairs {BUILDER}", config, {"model": model, "samples": samples}, seed)
    if stage.done:
        return stage.manifest
    done = {pair.id.removesuffix(f"/{BUILDER}") for pair in _built(out)}
    vlm = opened or load_vlm(model, cache=open_cache())
    folder = samples_file(samples).parent
    left = (sample for sample in read_samples(samples) if sample.id not in done)
    fitting = (sample for sample in left if fits(sample, folder, vlm, config))
    built = build_bdhs(fitting, folder, vlm, config, seed)
    _append(out, counted(built, progress, total, done=len(done)))
    return _finish(stage, folder, config, total)


def _count(samples: Path, *, decode: bool) -> int:
    """The number of samples, each of them fit to work on; `decode` looks into the images too."""
    count = 0
    for sample in read_samples(samples, require_reference=True):
        count += 1
        for image in sample.images if decode else ():
            open_image(samples_file(samples).parent / image, f"{samples_file(samples)} (id {sample.id!r})")
    if not count:
        raise InputError(f"{samples_file(samples)} holds no samples; make some first.")
    return count


def dropped_reason(pair: Pair) -> str | None:
    """Why a pair teaches nothing, or None: an empty rejected answer, or one that equals the chosen one."""
    if not pair.rejected.strip():
        return "empty rejected answer"
    if pair.rejected.strip() == pair.chosen.strip():
        return "rejected equals chosen"
    return None


def _built(out: Path) -> Iterator[Pair]:
    """Every pair built so far, those included that will be dropped."""
    path = out / _BUILT
    if path.exists():
        yield from read_rows(path, Pair, allow_torn_tail=True)


def _append(out: Path, pairs: Iterable[Pair]) -> None:
    """Put pairs on disk as they come; an interruption loses none that was built, and doubles none."""
    waiting: list[Pair] = []
    try:
        for pair in pairs:
            waiting.append(pair)
            if len(waiting) == _ROWS_AT_ONCE:
                ready, waiting = waiting, []  # first, lest an interrupted write be repeated below
                append_rows(out / _BUILT, ready)
    finally:
        append_rows(out / _BUILT, waiting)


def _finish(stage: Stage, source: Path, config: BDHSConfig, samples: int) -> Manifest:
    """Keep what teaches something, in the order of ids, and say in the manifest what it took."""
    out = stage.directory
    reasons, tries = Counter[str](), Counter[int]()
    similar = tokens = 0
    images: dict[str, None] = {}
    for pair in _built(out):
        tries[int(pair.provenance["tries"])] += 1
        similar += bool(pair.provenance["similar"])
        tokens += int(pair.provenance["tokens"])
        if reason := dropped_reason(pair):
            reasons[reason] += 1
        else:
            images |= dict.fromkeys(pair.images)
    total = tries.total()
    kept = total - reasons.total()
    if samples > total:
        reasons["too long for the model"] = samples - total
    if not kept:
        raise InputError(
            f"{source}: no pair is left, dropped were {dict(reasons)}; try a higher rho or temperature, or fewer "
            "max_new_tokens."
        )
    for image in images:
        adopt_image(source, image, out, str(out))
    teaching = sorted_rows(
        out / _BUILT, Pair, lambda pair: None if dropped_reason(pair) else pair.id, allow_torn_tail=True
    )
    write_rows(out / PAIRS, teaching)
    write_preference_dataset(out)
    # After try i: what was tried again, and at the last try what was accepted although similar.
    still = [sum(n for t, n in tries.items() if t > i) for i in range(1, config.tries)] + [similar]
    numbers = {f"share_similar_after_try_{i}": count / total for i, count in enumerate(still, 1)}
    return stage.finish(
        counts={
            "samples": samples,
            "pairs": kept,
            **{f"finished_at_try_{t}": n for t, n in sorted(tries.items())},
        },
        dropped=dict(reasons),
        numbers={**numbers, "generated_tokens": float(tokens)},
    )
