"""The stage around any builder: samples in, pair dataset out, resumable per sample, with a manifest.

A builder yields a result per sample; this stage stores finished results, drops and counts pairs that teach nothing, and
writes costs to the manifest. The builder makes pairs; `data.preference_dataset` stores them.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, SerializeAsAny

from sightline.builders.builder import Builder, BuildResult
from sightline.builders.registry import BUILDERS, check_server
from sightline.config import Config, SparseConfig
from sightline.config.problems import shorten
from sightline.data.formats.layout import SAME
from sightline.data.images import adopt_image, open_image
from sightline.data.preference_dataset import PAIRS, write_preference_dataset
from sightline.data.samples import Shard, read_samples, samples_file
from sightline.data.terminal import Progress, say, with_progress
from sightline.endpoint import GenerationServerConfig, ServedModel, find_served_model
from sightline.errors import InputError
from sightline.generators.server import ServerGenerator
from sightline.models.context import RunContext
from sightline.models.opening import open_model, resolve_spec
from sightline.models.processes import Processes, join_workers
from sightline.models.spec import ModelSpec
from sightline.models.vlm import VLM, cache_numbers
from sightline.records import Pair, Sample, append_rows, read_rows, sorted_rows, write_rows
from sightline.records.manifest import MANIFEST, ComputedRecords, Manifest, Stage, StageInput, add_listener
from sightline.records.parts import merge_parts, part_file

BUILT, SCRATCH, REPLIES = "work/built.jsonl", "work/views", "work/replies"
_ROWS_AT_ONCE = 32  # samples between two writes; a kill loses at most this many


@dataclass(frozen=True)
class BuildPlan:
    """Builder, config, seed and shard of a build; `server` answers in the model's place."""

    builder: Builder[Any]
    config: Config
    seed: int = 0
    shard: Shard = Shard()  # noqa: RUF009 - frozen
    server: GenerationServerConfig | None = None


def build_dataset(
    plan: BuildPlan,
    model: ModelSpec | str | Path | None,
    samples: Path,
    out: Path,
    progress: Progress | None = None,
) -> Manifest:
    """Run a builder over a samples directory or file; `progress(done, total)` is called as samples finish.

    Processes of a launcher share the samples; the directory is that of one process, byte for byte.

    Raises:
        InputError: the stage, samples, model, server or builder is invalid, no pair is left, or a server failed to
            answer some samples, which the next call tries again.
    """
    builder = plan.builder
    if plan.server is not None:
        check_server(builder.name)
    elif builder.needs_model and model is None:
        raise InputError(f"pairs {builder.name} needs a model; name one with --model")
    with join_workers() as processes:
        build = _Build(plan, samples, out, processes)
        spec = processes.on_all(lambda: None if model is None else resolve_spec(model))
        # Check rows, images, server and model before claiming the directory, so that a corrected command can reuse it.
        is_new = processes.on_first(lambda: not (out / MANIFEST).exists())
        total = processes.on_all(lambda: build.count(decode=is_new and processes.is_first))
        served = None if plan.server is None else processes.on_first(lambda: _find_server(plan.server))
        opened = processes.on_all(lambda: _open(spec)) if is_new else None
        inputs: dict[str, StageInput] = {"samples": samples, **({} if spec is None else spec.inputs())}
        settings = _settings(plan, served)
        stage = processes.on_first(lambda: Stage.open(out, f"pairs {builder.name}", settings, inputs, plan.seed))
        if not stage.done:
            policy = opened or processes.on_all(lambda: _open(spec))
            server = None if served is None else build.generator(served)
            context = RunContext(build.folder, build.scratch, plan.seed, policy, server)
            build.run(context, progress, total)
            build.share_records(stage)
            rate = {} if policy is None else cache_numbers(policy)
            manifest = processes.on_first(lambda: _finish(stage, build, total, rate))
            stage.manifest = manifest
        if processes.is_first:
            shutil.rmtree(out / REPLIES, ignore_errors=True)  # the answers are in the pairs
        return stage.manifest


class _Build:
    """The work of one process between the claim of the directory and its end."""

    def __init__(self, plan: BuildPlan, samples: Path, out: Path, processes: Processes) -> None:
        self.plan, self.samples, self.out, self.processes = plan, samples, out, processes
        self.folder = samples_file(samples).parent
        self.scratch = out / (SCRATCH if processes.count == 1 else f"{SCRATCH}-{processes.rank}")
        self.server: ServerGenerator | None = None
        self._noted = ComputedRecords()
        if not processes.is_first:
            add_listener(self._noted)

    def rows(self) -> Iterator[Sample]:
        """Yield the samples of all processes, grouped if the builder asks for it."""
        builder = self.plan.builder
        rows = read_samples(self.samples, require_reference=builder.needs_reference(self.plan.config))
        return self.plan.shard.every_nth(rows if builder.gather is None else builder.gather(rows))

    def count(self, *, decode: bool) -> int:
        """Count the samples and check each one; `decode` also opens the images."""
        count, file = 0, samples_file(self.samples)
        for sample in self.rows():
            count += 1
            for image in sample.images if decode else ():
                open_image(file.parent / image, f"{file} (id {shorten(sample.id)})")
        if not count:
            raise InputError(f"{file} holds no samples; run a samples stage first")
        return count

    def generator(self, served: ServedModel) -> ServerGenerator:
        """The server in the model's place."""
        assert self.plan.server is not None
        self.server = ServerGenerator(self.plan.server, served.name, replies=self.out / REPLIES)
        return self.server

    def run(self, context: RunContext, progress: Progress | None, total: int) -> None:
        """Build the samples that have no result yet, each process its share, and merge the results.

        Raises:
            InputError: a server failed to answer some samples; all others are kept.
        """
        self.processes.on_first(self._merge)
        done = {result.sample_id for result in _read_results(self.out)}
        if self.server is not None and self.processes.is_first:
            self.server.announce(self._answers() * (total - len(done)), _log)
        unfinished: list[str] = []
        shared = Shard(self.processes.rank, self.processes.count)
        remaining = shared.every_nth(sample for sample in self.rows() if sample.id not in done)

        def work(check: Callable[[], None]) -> None:
            file = part_file(self.out / BUILT, self.processes.rank, self.processes.count)
            results = self.plan.builder.build(remaining, context, self.plan.config)
            shown = _shown_progress(progress, self.processes.count)
            unfinished.extend(_append(self.out, file, with_progress(results, shown, total, done=len(done)), check))

        self.processes.side_by_side(self.out, work)
        self.processes.on_first(self._merge)
        self._report(sorted(name for names in self.processes.gather(unfinished) for name in names))

    def share_records(self, stage: Stage) -> None:
        """Add what the other processes computed in to the manifest."""
        for records in self.processes.gather(self._noted.records):
            for record in records if self.processes.is_first else ():
                stage.add_computed(record)

    def _answers(self) -> int:
        """The answers that the builder asks for about one sample, by its registry entry."""
        entry = BUILDERS.get(self.plan.builder.name)
        answers = 1 if entry is None or entry.answers is None else entry.answers
        return int(getattr(self.plan.config, answers)) if isinstance(answers, str) else answers

    def _merge(self) -> None:
        order = {sample.id: place for place, sample in enumerate(self.rows())}
        merge_parts(self.out / BUILT, BuildResult, lambda result: result.sample_id, order)

    def _report(self, unfinished: Sequence[str]) -> None:
        """Log the server's costs, and raise if it failed to answer some samples."""
        if self.server is None:
            return
        self.server.costs.replace_by(self.processes.gather(self.server.costs))
        if self.processes.is_first:
            _log(self.server.summary())
        if unfinished:
            self.processes.on_first(lambda: _raise_unfinished(unfinished))


def _raise_unfinished(unfinished: Sequence[str]) -> None:
    raise InputError(
        f"the server failed to answer {len(unfinished)} samples, such as {shorten(unfinished[0])}; nothing is lost: "
        "run the same command again to try only these"
    )


def _find_server(server: GenerationServerConfig | None) -> ServedModel:
    assert server is not None
    return find_served_model(server)


def _open(spec: ModelSpec | None) -> VLM | None:
    return None if spec is None else open_model(spec)


def _log(line: str) -> None:
    say(line, err=True)


def _shown_progress(progress: Progress | None, count: int) -> Progress | None:
    """Progress as the first of `count` processes sees it: the others are about as far."""
    if progress is None or count == 1:
        return progress
    before: list[int] = []

    def scaled(done: int, total: int) -> None:
        before.append(done)
        progress(min(total, before[0] + (done - before[0]) * count), total)

    return scaled


def dropped_reason(pair: Pair) -> str | None:
    """Return the reason why a pair teaches nothing, or None: an answer is empty, or both are equal."""
    if not pair.rejected.strip():
        return "empty rejected answer"
    if not pair.chosen.strip():
        return "empty chosen answer"
    return SAME if pair.rejected.strip() == pair.chosen.strip() else None


class _BuildSettings(SparseConfig):
    """Settings of a manifest where there are others than the builder's config."""

    SPARSE = frozenset({"shard", "endpoint"})

    shard: tuple[int, int] | None = Field(default=None, description="index of the shard, from 0, and number of shards")
    endpoint: ServedModel | None = Field(default=None, description="the model of the server that answers")
    config: SerializeAsAny[BaseModel] = Field(description="the builder's settings")


def _settings(plan: BuildPlan, served: ServedModel | None) -> Config:
    if plan.shard == Shard() and served is None:
        return plan.config
    shard = None if plan.shard == Shard() else (plan.shard.index, plan.shard.count)
    return _BuildSettings(shard=shard, endpoint=served, config=plan.config)


def _read_results(out: Path) -> Iterator[BuildResult]:
    """Yield all results so far."""
    if (out / BUILT).exists():
        yield from read_rows(out / BUILT, BuildResult, allow_torn_tail=True)


def _append(out: Path, file: Path, rows: Iterable[BuildResult], check: Callable[[], None]) -> list[str]:
    """Append results to `file` as they come; an interruption loses or repeats none. Returns the unfinished samples.

    `check` is called with each and may raise.

    Raises:
        InputError: the directory was removed or replaced, so that earlier rows are gone.
    """
    waiting: list[BuildResult] = []
    unfinished: list[str] = []
    try:
        for result in rows:
            check()
            if result.unfinished:
                unfinished.append(result.sample_id)
                continue
            waiting.append(result)
            if len(waiting) == _ROWS_AT_ONCE:
                ready, waiting = waiting, []  # reset first: `finally` must not repeat an interrupted write
                _require_claimed(out)
                append_rows(file, ready)
    finally:
        _require_claimed(out)
        append_rows(file, waiting)
    return unfinished


def _require_claimed(out: Path) -> None:
    """Raise if the directory was removed or replaced since it was claimed."""
    if not (out / MANIFEST).exists():
        raise InputError(f"{out} and its pairs were removed while the command ran; run it again")


def _finish(stage: Stage, build: _Build, samples: int, numbers: dict[str, float]) -> Manifest:
    """Write the pairs that teach something, in the order of ids, and finish the manifest with counts and costs."""
    out, source, server = stage.directory, build.folder, build.server
    reasons = Counter[str]()
    tallies: defaultdict[str, float] = defaultdict(float)
    tried = Counter[str]()
    images: dict[str, None] = {}
    kept, built = 0, set[str]()
    for result in _read_results(out):
        built.add(result.sample_id)
        tried.update(result.tallies.keys())
        for name, value in result.tallies.items():
            tallies[name] += value
        if result.dropped:
            reasons[result.dropped] += 1
        for pair in result.pairs:
            if reason := dropped_reason(pair):
                reasons[reason] += 1
            else:
                kept += 1
                images |= dict.fromkeys(pair.images)
    if len(built) != samples:
        raise InputError(
            f"{out / BUILT} holds {len(built)} of {samples} samples: rows were removed, or the samples changed, while "
            "the command ran; run it again"
        )
    if not kept:
        raise InputError(f"{source}: no pair is left (dropped: {dict(reasons)}); {build.plan.builder.remedy}")
    for image in images:
        adopt_image(source, image, out, str(out))
    write_rows(out / PAIRS, _kept_pairs(out))
    write_preference_dataset(out)
    for scratch in out.glob(f"{SCRATCH}*"):
        shutil.rmtree(scratch, ignore_errors=True)
    shares = {name: value / tried[name] for name, value in tallies.items() if name.startswith("share_")}
    costs = {} if server is None else server.numbers()
    failures = "" if server is None else server.costs.failures()
    return stage.finish(
        counts={"samples": samples, "pairs": kept},
        dropped=dict(reasons),
        numbers={**tallies, **shares, **numbers, **costs},
        warnings=[failures] if failures else [],
    )


def _kept_pairs(out: Path) -> Iterator[Pair]:
    """Yield the pairs to keep; memory holds the ids of samples, not the pairs."""
    for result in sorted_rows(out / BUILT, BuildResult, lambda result: f"{result.sample_id}/", allow_torn_tail=True):
        yield from (pair for pair in sorted(result.pairs, key=lambda pair: pair.id) if not dropped_reason(pair))
