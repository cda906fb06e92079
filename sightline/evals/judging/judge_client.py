"""Client that has a judge grade answers, batch by batch, and logs the cost before and after.

An interrupted run resumes after the last complete batch. Replies are stored in `verdicts` and scored by benchmarks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from sightline.config import Config
from sightline.endpoint import Ask, Endpoint, EndpointConfig
from sightline.evals.judging.protocols import Case, Grading, read_prompt
from sightline.evals.judging.verdicts import (
    GradedVerdict,
    JudgedBenchmark,
    Verdicts,
    group_verdicts,
    hash_text,
    read_saved,
)
from sightline.records import append_rows, hash_json
from sightline.records.rows import Answer, Sample


class EvalJudgeConfig(Config):
    """The judge of open answers, and its prices."""

    server: EndpointConfig = Field(description="the server of the judge")
    prompt: Path | None = Field(default=None, description="a prompt of your own, or the official one; hashed")
    runs: int = Field(default=1, ge=1, description="how often each answer is graded; MM-Vet's paper did it five times")
    prompt_price: float | None = Field(
        default=None, ge=0, description="price of a million prompt tokens; null: the cost is given in calls and tokens"
    )
    reply_price: float | None = Field(default=None, ge=0, description="price of a million reply tokens; null as above")
    currency: str = Field(default="USD", description="currency of the prices, for display")

    def grading(self, own: Grading) -> Grading:
        """The benchmark's grading, with the prompt of this config if there is one."""
        return own if self.prompt is None else own.with_prompt(read_prompt(self.prompt))

    def identity(self, own: Grading) -> str:
        """A hash of everything that determines a verdict: prompt, rule, model and sampling, not the server address."""
        return hash_json([self.grading(own).identity, self.server.identity])


Log = Callable[[str], None]
#: Number of rounds of the server's concurrency between two writes to disk.
_ROUNDS = 4
_CHARACTERS = 4  # a token, roughly, to estimate the cost in advance
_MILLION = 1e6


@dataclass(frozen=True)
class JudgeItem:
    """One answer, its case, and the number of the grading run."""

    sample_id: str
    answer: str
    case: Case
    run: int = 0


def grade_answers(
    benchmark: JudgedBenchmark,
    answered: Iterable[tuple[Sample, Answer]],
    config: EvalJudgeConfig,
    path: Path | None,
    log: Log,
) -> Verdicts:
    """The judge's verdicts on every answer; those in `path` are reused, and new ones are appended to it.

    Without `path`, replies are stored only in the endpoint's cache. `log` receives the expected and the actual cost.

    Raises:
        InputError: the server fails or a prompt's file is invalid; earlier verdicts are kept.
    """
    grading, identity = config.grading(benchmark.grading), config.identity(benchmark.grading)
    known = read_saved(path, identity) if path is not None else Verdicts(given=True, judge=identity)
    waiting = _ungraded(benchmark, answered, known, config.runs)
    new: list[GradedVerdict] = []
    if waiting:
        endpoint = Endpoint(config.server)
        log(cost_before(waiting, grading, config, endpoint))
        for batch in _verdict_batches(waiting, grading, identity, endpoint):
            if path is not None:
                append_rows(path, batch)
            new += batch
        log(cost_after(new, grading, config))
    fresh = group_verdicts(new, identity)
    return read_saved(path, identity) if path is not None else fresh


def grade_items(items: Sequence[JudgeItem], grading: Grading, identity: str, endpoint: Endpoint) -> list[GradedVerdict]:
    """A verdict for each item, in order, not written to disk."""
    return [verdict for batch in _verdict_batches(items, grading, identity, endpoint) for verdict in batch]


def cost_before(items: Sequence[JudgeItem], grading: Grading, config: EvalJudgeConfig, endpoint: Endpoint) -> str:
    """One line: expected calls, tokens and price if each reply can be read at the first try."""
    asks = [_request(item, grading, 0) for item in items]
    known = endpoint.count_cached(asks)
    share = (len(asks) - known) / len(asks)
    prompts = round(share * sum(len(ask.text) for ask in asks) / _CHARACTERS)
    replies = (len(asks) - known) * config.server.max_tokens
    pictures = " without the pictures" if any(ask.images for ask in asks) else ""
    price = _price(config, prompts, replies)
    return (
        f"judge {config.server.model}: {len(asks) - known:,} calls to make ({known:,} more are cached), about"
        f" {prompts:,} prompt tokens{pictures}, at most {replies:,} reply tokens{price and ', at most' + price}"
    )


def cost_after(verdicts: Sequence[GradedVerdict], grading: Grading, config: EvalJudgeConfig) -> str:
    """One line: calls, tokens and price by the server's count, and the number of unscored answers."""
    calls = sum(verdict.calls for verdict in verdicts)
    prompts = sum(verdict.prompt_tokens for verdict in verdicts)
    replies = sum(verdict.reply_tokens for verdict in verdicts)
    failed = sum(verdict.reply is None for verdict in verdicts)
    unread = sum(_is_unread(verdict, grading) for verdict in verdicts)
    price = _price(config, prompts, replies)
    return (
        f"judge {config.server.model}: {calls:,} calls, {prompts:,} prompt tokens, {replies:,} reply tokens"
        f"{price and ',' + price}; unscored: {failed:,} failed, {unread:,} unreadable of {len(verdicts):,}"
    )


def _price(config: EvalJudgeConfig, prompts: int, replies: int) -> str:
    if config.prompt_price is None and config.reply_price is None:
        return ""
    paid = (prompts * (config.prompt_price or 0.0) + replies * (config.reply_price or 0.0)) / _MILLION
    return f" {paid:.2f} {config.currency}"


def _ungraded(
    benchmark: JudgedBenchmark, answered: Iterable[tuple[Sample, Answer]], known: Verdicts, runs: int
) -> list[JudgeItem]:
    """Items without a reply, in order; failed calls are among them."""
    waiting = []
    for sample, answer in answered:
        earlier = known.replies.get((sample.id, hash_text(answer.text)), ())
        numbers = [run for run in range(runs) if run >= len(earlier) or earlier[run] is None]
        if numbers:
            case = benchmark.case(sample, answer)
            waiting += [JudgeItem(sample.id, answer.text, case, run) for run in numbers]
    return waiting


def _verdict_batches(
    items: Sequence[JudgeItem], grading: Grading, identity: str, endpoint: Endpoint
) -> Iterator[list[GradedVerdict]]:
    size = _ROUNDS * endpoint.config.concurrency
    for start in range(0, len(items), size):
        yield _grade_batch(items[start : start + size], grading, identity, endpoint)


def _grade_batch(
    batch: Sequence[JudgeItem], grading: Grading, identity: str, endpoint: Endpoint
) -> list[GradedVerdict]:
    """One verdict an item; unreadable replies are requested again, as often as the protocol allows."""
    verdicts = [
        GradedVerdict(sample_id=item.sample_id, judge=identity, answer=hash_text(item.answer), run=item.run, reply=None)
        for item in batch
    ]
    waiting = list(range(len(batch)))
    for number in range(grading.tries):
        replies = endpoint.ask([_request(batch[place], grading, number) for place in waiting])
        for place, reply in zip(waiting, replies, strict=True):
            before, paid = verdicts[place], int(not reply.kept)
            verdicts[place] = before.model_copy(
                update={
                    "reply": reply.text,
                    "note": reply.note,
                    "calls": before.calls + paid,
                    "prompt_tokens": before.prompt_tokens + paid * reply.prompt_tokens,
                    "reply_tokens": before.reply_tokens + paid * reply.tokens,
                }
            )
        waiting = [place for place in waiting if _is_unread(verdicts[place], grading)]
        if not waiting:
            break
    return verdicts


def _request(item: JudgeItem, grading: Grading, number: int) -> Ask:
    """The call of an item's try `number`; its seed differs, so that the cached reply is not returned."""
    images = item.case.images if grading.shows_image else ()
    return Ask(grading.text(item.case, again=number > 0), images, seed=item.run * grading.tries + number)


def _is_unread(verdict: GradedVerdict, grading: Grading) -> bool:
    return verdict.reply is not None and grading.read(verdict.reply) is None
