"""The evaluation stage: a model answers benchmarks greedily, batch by batch, and the answers are scored.

Scores are computed in `scoring`, intervals in `statistics`; torch is imported only if an answer is missing. An
interrupted stage resumes after its last complete batch; a complete one is skipped.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from rich.progress import Progress

from sightline.config import Config, SparseConfig
from sightline.data.samples import Shard
from sightline.data.terminal import open_bars
from sightline.errors import InputError
from sightline.evals.benchmark import Benchmark, BenchmarkOptions
from sightline.evals.contamination import find_contamination, training_fingerprint
from sightline.evals.directory import ANSWERS, SAMPLES, relocate_images
from sightline.evals.judging.judge_client import EvalJudgeConfig, Log
from sightline.evals.judging.judged_scoring import Judging, apply_judge
from sightline.evals.registry import get_benchmark
from sightline.evals.scoring import answers_as_scored, score_directory
from sightline.evals.statistics import RESAMPLES
from sightline.models.requests import GenerateRequest, Sampling, make_prefix
from sightline.models.spec import Dtype, ModelSpec, to_spec
from sightline.records.manifest import MANIFEST, Stage, StageInput
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


class LazyModel:
    """A model that is opened on first use, so that a finished evaluation needs none."""

    def __init__(self, spec: ModelSpec, config: EvalConfig, runtime: EvalRuntime) -> None:
        self.spec, self.config, self.runtime = spec, config, runtime
        self._vlm: VLM | None = None

    def open(self) -> "VLM":
        """The model, opened once."""
        if self._vlm is None:
            from sightline.models.opening import open_model

            self._vlm = open_model(self.spec)
        return self._vlm

    def cache_use(self) -> dict[str, float]:
        """Hit rates of the tensor cache; empty if the model was not loaded."""
        from sightline.models.vlm import cache_numbers

        return {} if self._vlm is None else cache_numbers(self._vlm)


def evaluate(
    model: ModelSpec | str | Path,
    out: Path,
    config: EvalConfig,
    *,
    adapter: Path | None = None,
    files: Files = Files(),
    seed: int = 0,
    runtime: EvalRuntime | None = None,
) -> Path:
    """Answer and score every benchmark of the config in `out`; returns `out`.

    `adapter` is a PEFT directory, as in `model`. `seed` affects only the resamples, since answers are greedy.

    Raises:
        InputError: a benchmark is unknown, the model cannot be loaded, or `out` holds another evaluation.
    """
    runtime = runtime or EvalRuntime()
    benchmarks = [get_benchmark(name, benchmark_options(files, out / "data", config)) for name in config.benchmarks]
    spec, config = _settle(to_spec(model), adapter, config, runtime)
    inputs = spec.inputs(dtype=False) | extra_inputs(config, files)
    answering = LazyModel(spec, config, runtime)
    shard, seen = Shard.parse(config.shard), training_fingerprint(spec.adapter, spec.place)
    if not (out / MANIFEST).exists():
        answering.open()  # now, so that a model that cannot be loaded does not claim the directory
    stage = Stage.open(out, "eval", config, inputs, seed)
    if stage.done:
        return out
    counts: dict[str, int] = {}
    failed, warnings = 0, []
    with open_bars() as bars:
        log = partial(bars.console.print, markup=False, highlight=False)
        for benchmark in benchmarks:
            samples = shard.contiguous(list(benchmark.samples()))
            if seen is not None and (
                warning := find_contamination(samples, benchmark.folder, seen).warning(benchmark.name)
            ):
                log(f"warning: {warning}")
                warnings.append(warning)
            answer_samples(benchmark, samples, out, answering, bars)
            counts[benchmark.name] = len(samples)
            failed += score_samples(benchmark, samples, out, config, seed, log)
    if failed:
        return out  # not finished: the same command retries the failed calls
    numbers = {"batch_size": float(runtime.batch_size), **answering.cache_use()}
    stage.finish(counts=counts, dropped={}, numbers=numbers, warnings=warnings)
    return out


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
    benchmark: Benchmark, samples: Sequence[Sample], out: Path, model: LazyModel, bars: Progress
) -> None:
    """Answer the samples of a benchmark that have no answer in `out` yet."""
    folder = out / benchmark.name
    _write_samples(benchmark, samples, folder)
    answers = folder / ANSWERS
    answered = (
        {answer.sample_id for answer in read_rows(answers, Answer, allow_torn_tail=True)} if answers.exists() else set()
    )
    waiting = [sample for sample in samples if sample.id not in answered]
    answered_already = len(samples) - len(waiting)
    task = bars.add_task(benchmark.name, total=len(samples), completed=answered_already, note="")
    for batch in _batches(waiting, model.runtime.batch_size):
        append_rows(answers, _answer(benchmark, batch, model))
        bars.advance(task, len(batch))


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
    score_directory(scoring, out, resamples=config.resamples, seed=seed, strip_reasoning=config.strip_reasoning)
    if failed:
        log(f"{failed} judge calls failed; run the same command again to retry only these")
    return failed


def _answer(benchmark: Benchmark, batch: Sequence[Sample], model: LazyModel) -> list[Answer]:
    from sightline.models.sampler import generate

    requests = [GenerateRequest(make_prefix(sample, benchmark.folder)) for sample in batch]
    generated = generate(
        model.open(),
        requests,
        Sampling(max_new_tokens=model.config.max_new_tokens or benchmark.max_new_tokens),
        batch_size=model.runtime.batch_size,
        autocast=model.config.autocast,
    )
    return [
        Answer(sample_id=s.id, cluster=s.cluster, text=g.text, tokens=g.tokens, finished=g.finished)
        for s, g in zip(batch, generated, strict=True)
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
