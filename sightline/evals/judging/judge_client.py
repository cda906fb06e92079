"""Having answers graded: what is asked of the judge, batch by batch, and what it costs, told before and after.

Killed, it goes on where it was. What was said is `verdicts`, who is asked `config`; no reply becomes a score here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from sightline.config import Config
from sightline.endpoint import Ask, Endpoint, EndpointConfig
from sightline.evals.judging.protocols import Case, Grading, template_of
from sightline.evals.judging.verdicts import GradedVerdict, JudgedBenchmark, Verdicts, gather, hash_text, kept
from sightline.records import append_rows, hash_json
from sightline.records.rows import Answer, Sample


class JudgeConfig(Config):
    """Who grades answers. Prices are for a million tokens; without them the cost is told in calls and tokens alone."""

    server: EndpointConfig
    prompt: Path | None = Field(default=None, description="a prompt of your own, or the official one; hashed")
    runs: int = Field(default=1, ge=1, description="how often each answer is graded; MM-Vet's paper did it five times")
    prompt_price: float | None = Field(default=None, ge=0)
    reply_price: float | None = Field(default=None, ge=0)
    currency: str = "USD"

    def grading(self, own: Grading) -> Grading:
        """The benchmark's grading, behind the prompt of this config where it names one."""
        return own if self.prompt is None else own.with_prompt(template_of(self.prompt))

    def identity(self, own: Grading) -> str:
        """A hash of all that decides a verdict: prompt, rule, model and sampling, not the server's address."""
        return hash_json([self.grading(own).identity, self.server.identity])


Say = Callable[[str], None]
#: So many rounds of the server's concurrency are asked before what was said is written down.
_ROUNDS = 4
_CHARACTERS = 4  # a token, roughly: to tell the cost before it is known
_MILLION = 1e6


@dataclass(frozen=True)
class JudgeItem:
    """One answer, the case that is made of it, and which of its gradings this is."""

    sample_id: str
    answer: str
    case: Case
    run: int = 0


def judge(
    benchmark: JudgedBenchmark,
    answered: Iterable[tuple[Sample, Answer]],
    config: JudgeConfig,
    path: Path | None,
    say: Say,
) -> Verdicts:
    """What the judge says of every answer; what is in `path` already is not asked again, and what is new is added.

    Without `path` the endpoint's own cache is all that is kept. `say` is told what it will cost and what it has cost.

    Raises:
        InputError: of the server or of a prompt's file; what was said before is kept.
    """
    grading, identity = config.grading(benchmark.grading), config.identity(benchmark.grading)
    known = kept(path, identity) if path is not None else Verdicts(given=True, judge=identity)
    waiting = _waiting(benchmark, answered, known, config.runs)
    new: list[GradedVerdict] = []
    if waiting:
        endpoint = Endpoint(config.server)
        say(cost_before(waiting, grading, config, endpoint))
        for batch in _verdict_batches(waiting, grading, identity, endpoint):
            if path is not None:
                append_rows(path, batch)
            new += batch
        say(cost_after(new, grading, config))
    fresh = gather(new, identity)
    return kept(path, identity) if path is not None else fresh


def ask_all(items: Sequence[JudgeItem], grading: Grading, identity: str, endpoint: Endpoint) -> list[GradedVerdict]:
    """A verdict for each item, in order, written nowhere."""
    return [verdict for batch in _verdict_batches(items, grading, identity, endpoint) for verdict in batch]


def cost_before(items: Sequence[JudgeItem], grading: Grading, config: JudgeConfig, endpoint: Endpoint) -> str:
    """One line: calls, tokens and price to come, where each reply is read at the first try."""
    asks = [_ask_of(item, grading, 0) for item in items]
    known = endpoint.known(asks)
    share = (len(asks) - known) / len(asks)
    prompts = round(share * sum(len(ask.text) for ask in asks) / _CHARACTERS)
    replies = (len(asks) - known) * config.server.max_tokens
    pictures = " without the pictures" if any(ask.images for ask in asks) else ""
    price = _price(config, prompts, replies)
    return (
        f"judge {config.server.model}: {len(asks) - known:,} calls to make ({known:,} more are answered on disk), about"
        f" {prompts:,} prompt tokens{pictures}, at most {replies:,} reply tokens{price and ', at most' + price}"
    )


def cost_after(verdicts: Sequence[GradedVerdict], grading: Grading, config: JudgeConfig) -> str:
    """One line: what was spent by the server's own count, and how many answers are unscored."""
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


def _price(config: JudgeConfig, prompts: int, replies: int) -> str:
    if config.prompt_price is None and config.reply_price is None:
        return ""
    paid = (prompts * (config.prompt_price or 0.0) + replies * (config.reply_price or 0.0)) / _MILLION
    return f" {paid:.2f} {config.currency}"


def _waiting(
    benchmark: JudgedBenchmark, answered: Iterable[tuple[Sample, Answer]], known: Verdicts, runs: int
) -> list[JudgeItem]:
    """What has no reply yet, in order; a failed call is asked again."""
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
        yield _ask(items[start : start + size], grading, identity, endpoint)


def _ask(batch: Sequence[JudgeItem], grading: Grading, identity: str, endpoint: Endpoint) -> list[GradedVerdict]:
    """One verdict an item; what breaks the rule is asked for again, as often as the protocol says."""
    verdicts = [
        GradedVerdict(sample_id=item.sample_id, judge=identity, answer=hash_text(item.answer), run=item.run, reply=None)
        for item in batch
    ]
    waiting = list(range(len(batch)))
    for number in range(grading.tries):
        replies = endpoint.ask([_ask_of(batch[place], grading, number) for place in waiting])
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


def _ask_of(item: JudgeItem, grading: Grading, number: int) -> Ask:
    """The call of an item's try `number`; the seed differs, lest the reply on disk come back."""
    images = item.case.images if grading.shows_image else ()
    return Ask(grading.text(item.case, again=number > 0), images, seed=item.run * grading.tries + number)


def _is_unread(verdict: GradedVerdict, grading: Grading) -> bool:
    return verdict.reply is not None and grading.read(verdict.reply) is None
