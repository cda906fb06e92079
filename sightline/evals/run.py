"""The evaluation stage: a model answers benchmarks greedily, batch by batch, and its answers become estimates.

Scoring is `scoring`, resampling `statistics`; torch is imported only where an answer is still missing. A stage that was
killed goes on after its last whole batch, and one that is complete is left alone.
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
from sightline.evals.benchmark import Benchmark, BenchmarkSetting
from sightline.evals.contamination import find_leaks, trained_on
from sightline.evals.directory import ANSWERS, SAMPLES, relocated
from sightline.evals.judging.judge_client import JudgeConfig, Say
from sightline.evals.judging.judged_scoring import Judging, judged
from sightline.evals.registry import get_benchmark
from sightline.evals.scoring import as_scored, score_directory
from sightline.evals.statistics import RESAMPLES
from sightline.models.requests import GenerateRequest, Sampling, prefix_of
from sightline.records.manifest import MANIFEST, Stage
from sightline.records.rows import Answer, Sample
from sightline.records.store import append_rows, read_rows, write_rows

if TYPE_CHECKING:
    from sightline.models.vlm import VLM


#: The shard of an evaluation that is not divided.
WHOLE = "0/1"


class EvalConfig(SparseConfig):
    """What decides the numbers. `limit` keeps a benchmark's first so many pictures; `validation` asks of those on which
    settings may be chosen, never of the test's; `split` picks one official part; `shard` is this process's part, such
    as 0/4; `autocast` is bfloat16 autocast while generating; `max_new_tokens` replaces the benchmarks' own limits.
    `judge` grades the answers to benchmarks that ask one; without it they stay unscored. `strip_reasoning` scores what
    follows a model's reasoning tags; answers are kept whole.
    """

    SPARSE = frozenset({"strip_reasoning"})

    benchmarks: tuple[str, ...] = Field(min_length=1)
    limit: int | None = Field(default=None, ge=1)
    validation: bool = False
    split: str | None = None
    shard: str = WHOLE
    dtype: str = "float32"
    autocast: bool = False
    resamples: int = Field(default=RESAMPLES, ge=100)
    max_new_tokens: int | None = Field(default=None, ge=1)
    judge: JudgeConfig | None = None
    strip_reasoning: bool = False


class EvalRuntime(Config):
    """What decides only the speed (up to rounding), so that it may change when a run goes on."""

    batch_size: int = Field(default=32, ge=1)
    device: str = "auto"


@dataclass(frozen=True)
class Files:
    """Where benchmarks find their official files, or put what they make (by default `OUT/data`), and pictures if not
    there, and a word list in place of theirs.
    """

    data: Path | None = None
    images: Path | None = None
    synonyms: Path | None = None


class HubEvalConfig(EvalConfig):
    """What the manifest records where the model is a hub id, of which there are no files to hash."""

    model: str


class LazyModel:
    """A model that is opened when it is needed, so that a finished evaluation needs none."""

    def __init__(self, path: str | Path, adapter: Path | None, config: EvalConfig, runtime: EvalRuntime) -> None:
        self.path, self.adapter, self.config, self.runtime = path, adapter, config, runtime
        self._vlm: VLM | None = None

    def open(self) -> "VLM":
        """The model itself, opened once."""
        if self._vlm is None:
            from sightline.models.device import resolve_device
            from sightline.models.loading import load_vlm
            from sightline.models.tensor_cache import open_cache

            device = resolve_device(self.runtime.device)
            self._vlm = load_vlm(
                self.path, adapter=self.adapter, device=device, dtype=self.config.dtype, cache=open_cache()
            )
        return self._vlm

    def cache_use(self) -> dict[str, float]:
        """How often the cache had what was asked; empty where the model was not needed."""
        from sightline.models.vlm import hit_rate_of

        return {} if self._vlm is None else hit_rate_of(self._vlm)


def evaluate(
    model: str | Path,
    out: Path,
    config: EvalConfig,
    *,
    adapter: Path | None = None,
    files: Files = Files(),
    seed: int = 0,
    runtime: EvalRuntime | None = None,
) -> Path:
    """Answer and score every benchmark of the config in `out`; the directory it returns is `out`.

    `model` is a directory or a hub id, `adapter` a PEFT directory. `seed` decides the resamples, since answers are
    greedy.

    Raises:
        InputError: an unknown benchmark, a model that cannot be opened, or `out` holds another evaluation.
    """
    runtime = runtime or EvalRuntime()
    benchmarks = [get_benchmark(name, setting_of(files, out / "data", config)) for name in config.benchmarks]
    on_hub = is_hub_id(model)
    inputs = ({} if on_hub else {"model": Path(model)}) | read_beside(config, files)
    if adapter is not None:
        inputs["adapter"] = adapter
    recorded = HubEvalConfig(**config.model_dump(), model=str(model)) if on_hub else config
    answering = LazyModel(model, adapter, config, runtime)
    shard, seen = Shard.parse(config.shard), trained_on(adapter, Path(model))
    if not (out / MANIFEST).exists():
        answering.open()  # now, so that a model that cannot be opened does not claim the directory
    stage = Stage.open(out, "eval", recorded, inputs, seed)
    if stage.done:
        return out
    counts: dict[str, int] = {}
    failed, warnings = 0, []
    with open_bars() as bars:
        say = partial(bars.console.print, markup=False, highlight=False)
        for benchmark in benchmarks:
            samples = shard.stretch_of(list(benchmark.samples()))
            if seen is not None and (warning := find_leaks(samples, benchmark.folder, seen).sentence(benchmark.name)):
                say(f"warning: {warning}")
                warnings.append(warning)
            answer_samples(benchmark, samples, out, answering, bars)
            counts[benchmark.name] = len(samples)
            failed += score_samples(benchmark, samples, out, config, seed, say)
    if failed:
        return out  # not finished: the same command asks for the failed calls alone
    numbers = {"batch_size": float(runtime.batch_size), **answering.cache_use()}
    stage.finish(counts=counts, dropped={}, numbers=numbers, warnings=warnings)
    return out


def is_hub_id(model: str | Path) -> bool:
    """Whether a model is named as the hub names one, and no folder is meant."""
    return isinstance(model, str) and model.count("/") == 1 and not Path(model).parent.exists()


def read_beside(config: EvalConfig, files: Files) -> dict[str, Path]:
    """The files that decide numbers without being the model's or the benchmark's, by the name of their hash."""
    prompt = None if config.judge is None else config.judge.prompt
    named = {"judge_prompt": prompt, "synonyms": files.synonyms}
    return {name: path for name, path in named.items() if path is not None}


def setting_of(files: Files, default: Path, config: EvalConfig) -> BenchmarkSetting:
    """What the benchmarks of an evaluation are made with; their data is in `default` where `files` does not say."""
    return BenchmarkSetting(
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
    """Answer those samples of a benchmark that have no answer in `out` yet."""
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
    benchmark: Benchmark, samples: Sequence[Sample], out: Path, config: EvalConfig, seed: int, say: Say
) -> int:
    """Score the answers in `out`, after the benchmark's judge where the config names one; how many calls failed.

    `say` is told what the judge costs.
    """
    folder = out / benchmark.name

    def answered() -> Iterator[tuple[Sample, Answer | None]]:
        answers = {answer.sample_id: answer for answer in read_rows(folder / ANSWERS, Answer)}
        return as_scored(((sample, answers.get(sample.id)) for sample in samples), config.strip_reasoning)

    scoring, failed = judged(benchmark, answered, Judging(config.judge, say=say), folder)
    score_directory(scoring, out, resamples=config.resamples, seed=seed, strip_reasoning=config.strip_reasoning)
    if failed:
        say(f"{failed} calls of the judge failed; run the same command again to ask for them alone")
    return failed


def _answer(benchmark: Benchmark, batch: Sequence[Sample], model: LazyModel) -> list[Answer]:
    from sightline.models.sampler import generate

    requests = [GenerateRequest(prefix_of(sample, benchmark.folder)) for sample in batch]
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
    """Keep the questions beside their answers; a folder with other questions is another evaluation's."""
    ids = {sample.id for sample in samples}
    if len(ids) < len(samples):
        raise InputError(f"benchmark {benchmark.name!r} has {len(samples) - len(ids)} samples whose id is not unique.")
    rows = [relocated(sample, benchmark.folder, folder) for sample in samples]
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
