"""The evaluation stage: a model answers benchmarks greedily, batch by batch, and the answers are scored.

Scores are computed in `scoring`, intervals in `statistics`; torch is imported only if an answer is missing. An
interrupted stage resumes after its last complete batch; a complete one is skipped.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from rich.progress import Progress

from sightline.config import Config, SparseConfig
from sightline.data.fingerprint import Fingerprint
from sightline.data.samples import Shard
from sightline.data.terminal import open_bars
from sightline.endpoint import GenerationServerConfig, ServedModel
from sightline.errors import InputError
from sightline.evals.benchmark import Benchmark, BenchmarkOptions
from sightline.evals.contamination import find_contamination, training_fingerprint
from sightline.evals.directory import ANSWERS, SAMPLES, relocate_images
from sightline.evals.judging.judge_client import EvalJudgeConfig, Log
from sightline.evals.judging.judged_scoring import Judging, apply_judge
from sightline.evals.registry import get_benchmark
from sightline.evals.scoring import answers_as_scored, score_directory
from sightline.evals.served import REFUSED, REPLIES, Answerer, ServedAnswers
from sightline.evals.statistics import RESAMPLES
from sightline.models.processes import Processes, join_workers
from sightline.models.requests import FailedGeneration, GenerateRequest, Generation, Sampling, make_prefix
from sightline.models.spec import Dtype, ModelSpec, to_spec
from sightline.records.manifest import MANIFEST, Stage, StageInput
from sightline.records.parts import merge_parts, part_file
from sightline.records.rows import Answer, Sample
from sightline.records.store import append_rows, read_rows, write_rows

if TYPE_CHECKING:
    from sightline.models.vlm import VLM


#: The shard of an undivided evaluation.
WHOLE = "0/1"


class EvalConfig(SparseConfig):
    """Settings of an evaluation that determine its metrics."""

    SPARSE = frozenset({"strip_reasoning"})

    benchmarks: tuple[str, ...] = Field(min_length=1, description="names of the benchmarks")
    limit: int | None = Field(
        default=None, ge=1, description="use the first so many images of each benchmark; null: all"
    )
    validation: bool = Field(default=False, description="use the images for tuning instead of the test images")
    split: str | None = Field(default=None, description="one official part of a benchmark; null: all parts")
    shard: str = Field(default=WHOLE, description="this process's part of the samples, such as 0/4; 0/1: all")
    dtype: Dtype = Field(default="auto", description="number format of the weights, as in ModelSpec")
    autocast: bool = Field(
        default=False, description="run the forward pass in bfloat16; faster on a GPU, with slightly different numbers"
    )
    resamples: int = Field(
        default=RESAMPLES, ge=100, description="resamples of the cluster bootstrap behind each interval"
    )
    max_new_tokens: int | None = Field(
        default=None, ge=1, description="token limit of an answer; null: each benchmark's own limit"
    )
    judge: EvalJudgeConfig | None = Field(
        default=None, description="the judge of benchmarks that need one; null: their answers stay unscored"
    )
    strip_reasoning: bool = Field(
        default=False, description="score the text after a model's reasoning tags; answers are stored whole"
    )


class EvalRuntime(Config):
    """Settings that affect only speed (up to rounding), so that they may change when a run resumes."""

    batch_size: int = Field(default=32, ge=1, description="answers generated together; fewer need less memory")
    device: str = Field(default="auto", description="auto, cpu or cuda; auto: cuda if there is a GPU")


@dataclass(frozen=True)
class Files:
    """`data` holds the benchmarks' official or generated files (default: `OUT/data`), `images` the images if they are
    elsewhere, `synonyms` a word list that replaces the benchmark's own.
    """

    data: Path | None = None
    images: Path | None = None
    synonyms: Path | None = None


class ServedEvalConfig(EvalConfig):
    """The config in the manifest if a server answers."""

    endpoint: ServedModel = Field(description="the model of the server")


def recorded_type(config: Mapping[str, Any]) -> type[EvalConfig]:
    """The class of a manifest's config."""
    return ServedEvalConfig if "endpoint" in config else EvalConfig


class LazyModel(Answerer):
    """A model that is opened on first use, so that a finished evaluation needs none."""

    def __init__(self, spec: ModelSpec, config: EvalConfig, runtime: EvalRuntime) -> None:
        super().__init__(runtime.batch_size)
        self.spec, self.config, self.runtime = spec, config, runtime
        self._vlm: VLM | None = None

    def open(self) -> "VLM":
        """The model, opened once."""
        if self._vlm is None:
            from sightline.models.opening import open_model

            self._vlm = open_model(self.spec)
        return self._vlm

    def sample(self, requests: Sequence[GenerateRequest], most_tokens: int) -> list[Generation | FailedGeneration]:
        """One greedy answer per request, in order."""
        from sightline.models.generator import ModelGenerator

        generator = ModelGenerator(self.open(), batch_size=self.batch_size, autocast=self.config.autocast)
        return generator.sample(requests, Sampling(self.config.max_new_tokens or most_tokens))

    def numbers(self) -> dict[str, float]:
        """The batch size, and the hit rate of the tensor cache if the model was loaded."""
        from sightline.models.vlm import cache_numbers

        return {"batch_size": float(self.batch_size)} | ({} if self._vlm is None else cache_numbers(self._vlm))


def evaluate(
    model: ModelSpec | str | Path | GenerationServerConfig,
    out: Path,
    config: EvalConfig,
    *,
    adapter: Path | None = None,
    files: Files = Files(),
    seed: int = 0,
    runtime: EvalRuntime | None = None,
) -> Path:
    """Answer and score every benchmark of the config in `out`; returns `out`.

    `adapter` is a PEFT directory, as in `model`; a server loads it for the time of the run. `seed` affects only the
    resamples, since answers are greedy. Processes of a launcher share the samples; the directory is that of one
    process. It stays unfinished while a server's answers are missing that may succeed later.

    Raises:
        InputError: a benchmark is unknown, the model cannot be loaded, or `out` holds another evaluation.
    """
    with join_workers() as processes:
        run = _EvalRun(out, config, files, processes)
        benchmarks = processes.on_all(run.benchmarks)
        answering: Answerer
        if isinstance(model, GenerationServerConfig):
            server = answering = ServedAnswers(model, out, config.max_new_tokens, adapter)
            server.served = processes.on_first(server.open)
            recorded: EvalConfig = ServedEvalConfig(**config.model_dump(), endpoint=server.served)
            inputs: dict[str, StageInput] = {} if adapter is None else {"adapter": adapter}
            seen = training_fingerprint(adapter)
        else:
            speed, given = runtime or EvalRuntime(), to_spec(model)
            spec, recorded = processes.on_all(lambda: _settle(given, adapter, config, speed))
            answering = LazyModel(spec, recorded, speed)
            inputs = spec.inputs(dtype=False)
            seen = training_fingerprint(spec.adapter, spec.place)
        inputs |= extra_inputs(config, files)
        if not processes.on_first((out / MANIFEST).exists):
            processes.on_all(answering.open)  # now, so that a model that cannot be loaded does not claim the directory
        stage = processes.on_first(lambda: Stage.open(out, "eval", recorded, inputs, seed))
        if not stage.done:
            run = replace(run, config=recorded)
            run.finish(stage, answering, run.answer(benchmarks, answering, seen, seed))
        if processes.is_first and stage.done:
            shutil.rmtree(out / REPLIES, ignore_errors=True)
    return out


@dataclass
class _Progress:
    """What came of the benchmarks: samples of each, failed calls of the judge, and warnings."""

    counts: dict[str, int] = field(default_factory=dict)
    unjudged: int = 0
    unanswered: int = 0
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _EvalRun:
    """One process's part of an evaluation."""

    out: Path
    config: EvalConfig
    files: Files
    processes: Processes

    def benchmarks(self) -> list[Benchmark]:
        """The benchmarks of the config."""
        options = benchmark_options(self.files, self.out / "data", self.config)
        return [get_benchmark(name, options) for name in self.config.benchmarks]

    def answer(
        self, benchmarks: Sequence[Benchmark], answering: Answerer, seen: Fingerprint | None, seed: int
    ) -> _Progress:
        """Answer and score the benchmarks; collective."""
        found, shard, processes = _Progress(), Shard.parse(self.config.shard), self.processes
        with open_bars(shown=processes.is_first) as bars, answering.ready(processes):
            log = partial(bars.console.print, markup=False, highlight=False, soft_wrap=True)
            for benchmark in benchmarks:
                # The first process reads them, and draws the images that do not exist yet.
                samples = processes.on_first(lambda: shard.contiguous(list(benchmark.samples())))  # noqa: B023
                if seen is not None and (
                    warning := find_contamination(samples, benchmark.folder, seen).warning(benchmark.name)
                ):
                    log(f"warning: {warning}")
                    found.warnings.append(warning)
                answering.log = log
                found.unanswered += answer_samples(benchmark, samples, self.out, answering, bars, processes)
                found.counts[benchmark.name] = len(samples)
                found.unjudged += processes.on_first(
                    lambda: score_samples(benchmark, samples, self.out, self.config, seed, log)  # noqa: B023
                )
            answering.report(processes.gather(answering.costs))
        return found

    def finish(self, stage: Stage, answering: Answerer, found: _Progress) -> None:
        """Finish the stage, unless the same command would retry something: failed calls of a judge or a server."""
        if not self.processes.is_first or found.unjudged or answering.costs.unfinished:
            return
        dropped = {REFUSED: found.unanswered} if found.unanswered else {}
        warnings = [*found.warnings, *filter(None, [answering.costs.failures()])]
        stage.finish(counts=found.counts, dropped=dropped, numbers=answering.numbers(), warnings=warnings)


def _settle(
    spec: ModelSpec, adapter: Path | None, config: EvalConfig, runtime: EvalRuntime
) -> tuple[ModelSpec, EvalConfig]:
    """The model with the adapter, device and number format of the other settings, and the config with that format."""
    if adapter is not None and spec.adapter is not None and adapter != spec.adapter:
        raise InputError(f"two adapters are given, {adapter} and {spec.adapter}; leave one out")
    device = spec.device if runtime.device == "auto" else runtime.device
    dtype = spec.dtype if config.dtype == "auto" else config.dtype
    spec = spec.with_options({"adapter": adapter or spec.adapter, "device": device, "dtype": dtype})
    if dtype == "auto":
        from sightline.models.opening import resolve_spec

        dtype = resolve_spec(spec).dtype
    return spec.with_options({"dtype": dtype}), config.model_copy(update={"dtype": dtype})


def extra_inputs(config: EvalConfig, files: Files) -> dict[str, StageInput]:
    """Files that affect the metrics and belong to neither model nor benchmark, by the name of their hash."""
    prompt = None if config.judge is None else config.judge.prompt
    named = {"judge_prompt": prompt, "synonyms": files.synonyms}
    return {name: path for name, path in named.items() if path is not None}


def benchmark_options(files: Files, default: Path, config: EvalConfig) -> BenchmarkOptions:
    """The options of an evaluation's benchmarks; their data is in `default` unless `files` names a directory."""
    return BenchmarkOptions(
        files.data or default,
        images=files.images,
        limit=config.limit,
        validation=config.validation,
        split=config.split,
        synonyms=files.synonyms,
    )


def answer_samples(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    out: Path,
    model: Answerer,
    bars: Progress,
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> int:
    """Answer the samples of a benchmark that have no answer in `out` yet; returns how many still have none.

    Collective: each process answers a contiguous part of them, so that questions about one image stay together.
    """
    folder = out / benchmark.name
    answers, order = folder / ANSWERS, {sample.id: place for place, sample in enumerate(samples)}

    def merge() -> None:
        merge_parts(answers, Answer, lambda answer: answer.sample_id, order)

    def prepare() -> None:
        _write_samples(benchmark, samples, folder)
        merge()

    processes.on_first(prepare)
    answered = _answered(answers)
    waiting = [sample for sample in samples if sample.id not in answered]
    count = processes.count
    task = bars.add_task(benchmark.name, total=len(samples), completed=len(samples) - len(waiting), note="")
    part = part_file(answers, processes.rank, count)

    def work(check: Callable[[], None]) -> None:
        model.announce(len(waiting) if processes.is_first else 0)
        for batch in _batches(Shard(processes.rank, count).contiguous(waiting), model.batch_size):
            check()
            append_rows(part, _answer(benchmark, batch, model))
            bars.advance(task, len(batch) * count)  # the others are about as far

    processes.side_by_side(folder, work)
    processes.on_first(merge)
    bars.update(task, completed=len(samples))
    return len(samples) - len(_answered(answers))


def _answered(answers: Path) -> set[str]:
    """The ids of the samples that have an answer."""
    return {row.sample_id for row in read_rows(answers, Answer, allow_torn_tail=True)} if answers.exists() else set()


def score_samples(
    benchmark: Benchmark, samples: Sequence[Sample], out: Path, config: EvalConfig, seed: int, log: Log
) -> int:
    """Score the answers in `out`, with a judge if the config has one; returns the number of failed judge calls.

    `log` receives the cost of the judge.
    """
    folder = out / benchmark.name

    def answered() -> Iterator[tuple[Sample, Answer | None]]:
        answers = {answer.sample_id: answer for answer in read_rows(folder / ANSWERS, Answer)}
        return answers_as_scored(((sample, answers.get(sample.id)) for sample in samples), config.strip_reasoning)

    scoring, failed = apply_judge(benchmark, answered, Judging(config.judge, log=log), folder)
    score_directory(
        scoring,
        out,
        resamples=config.resamples,
        seed=seed,
        strip_reasoning=config.strip_reasoning,
        allow_missing=isinstance(config, ServedEvalConfig),
    )
    if failed:
        log(f"{failed} judge calls failed; run the same command again to retry only these")
    return failed


def _answer(benchmark: Benchmark, batch: Sequence[Sample], model: Answerer) -> list[Answer]:
    """The answers to a batch, without those that failed."""
    requests = [GenerateRequest(make_prefix(sample, benchmark.folder)) for sample in batch]
    generated = model.sample(requests, benchmark.max_new_tokens)
    return [
        Answer(sample_id=s.id, cluster=s.cluster, text=g.text, tokens=g.tokens, finished=g.finished)
        for s, g in zip(batch, generated, strict=True)
        if isinstance(g, Generation)
    ]


def _write_samples(benchmark: Benchmark, samples: Sequence[Sample], folder: Path) -> None:
    """Write the questions beside their answers; a folder with other questions belongs to another evaluation."""
    ids = {sample.id for sample in samples}
    if len(ids) < len(samples):
        raise InputError(f"benchmark {benchmark.name!r} has {len(samples) - len(ids)} samples with a duplicate id.")
    rows = [relocate_images(sample, benchmark.folder, folder) for sample in samples]
    path = folder / SAMPLES
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(path, rows)
    elif [row.model_dump(mode="json") for row in read_rows(path, Sample)] != [
        row.model_dump(mode="json") for row in rows
    ]:
        raise InputError(f"{path} holds other samples than {benchmark.name!r} has now; choose another --out.")


def _batches(samples: Sequence[Sample], size: int) -> Iterable[Sequence[Sample]]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]
