"""Whole answers from a server: the generator of `sightline pairs` and `eval --endpoint`, and of online training.

`sightline.endpoint` sends the requests, retries and keeps replies; here generation requests become its requests, costs
are estimated and summed up, and failures are counted by their cause.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sightline.config.problems import shorten
from sightline.endpoint import Ask, Endpoint, GenerationServerConfig, Reply
from sightline.endpoint.client import ReplyCache
from sightline.errors import InputError
from sightline.models.requests import FailedGeneration, GenerateRequest, Generation, Sampling

_CHARACTERS = 4  # a token, roughly, to estimate the cost in advance
_SHOWN = 3  # causes of failures that are named
_SECONDS = 1000.0  # from here on, hours say more

Log = Callable[[str], None]


@dataclass
class ServerCosts:
    """What was spent: calls, tokens by the server's count, seconds of waiting, and failed calls by cause.

    `unfinished` is the number of failed calls that may succeed later.
    """

    calls: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0
    failed: Counter[str] = field(default_factory=Counter)
    unfinished: int = 0

    def add(self, replies: Sequence[Reply], seconds: float) -> None:
        """Add the replies of some requests, which took so long together."""
        self.seconds += seconds
        for reply in replies:
            self.kept += reply.kept
            self.calls += not reply.kept
            self.prompt_tokens += reply.prompt_tokens * (not reply.kept)
            self.reply_tokens += reply.tokens * (not reply.kept)
            if reply.text is None and reply.begun is None:
                self.failed[reply.note] += 1
                self.unfinished += not reply.refused

    def replace_by(self, costs: Sequence["ServerCosts"]) -> None:
        """Become the sum of what several processes spent in the same time."""
        total = ServerCosts()
        for each in costs:
            total.calls += each.calls
            total.kept += each.kept
            total.prompt_tokens += each.prompt_tokens
            total.reply_tokens += each.reply_tokens
            total.seconds = max(total.seconds, each.seconds)
            total.failed += each.failed
            total.unfinished += each.unfinished
        self.__dict__.update(total.__dict__)

    def failures(self) -> str:
        """The number of failed calls and their most frequent causes; empty if none failed."""
        if not self.failed:
            return ""
        causes = "; ".join(f"{count:,} of {shorten(note)}" for note, count in self.failed.most_common(_SHOWN))
        return f"{self.failed.total():,} answers failed ({causes})"


class ServerGenerator:
    """A model on a server, whose costs are added to `costs`.

    Replies are kept in the directory `replies`, so that none is paid for twice after a kill. Each call carries its
    seed; whether a server's sample depends on anything else is up to the server.

    Raises:
        InputError: on use: no server answers, it does not know the model, or a request needs the model in process (a
            prefill, hidden image tokens).
    """

    def __init__(
        self,
        config: GenerationServerConfig,
        model: str,
        replies: Path | None = None,
        costs: ServerCosts | None = None,
    ) -> None:
        self._config, self._model, self._replies = config, model, replies
        self._log: Log | None = None
        self._expected = 0
        self._endpoints: dict[Sampling, Endpoint] = {}
        self.costs = costs or ServerCosts()

    def announce(self, expected: int, log: Log) -> None:
        """Have `log` receive an estimate with the first of the `expected` requests to come.

        That request is sent alone, to measure how long one takes.
        """
        self._expected, self._log = expected, log

    def sample(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> list[Generation | FailedGeneration]:
        """One continuation per request, in order."""
        asks = [server_request(request, sampling) for request in requests]
        start, first = time.monotonic(), list[Reply]()
        if self._log is not None and asks:
            first = self._endpoint(sampling).ask(asks[:1])
            self._log(self._estimate(asks, sampling, first[0], time.monotonic() - start))
            self._log = None
        replies = [*first, *self._endpoint(sampling).ask(asks[len(first) :])]
        self.costs.add(replies, time.monotonic() - start)
        return [generation_of(reply) for reply in replies]

    def summary(self) -> str:
        """One line: what this process spent."""
        spent, failures = self.costs, self.costs.failures()
        kept = f" ({spent.kept:,} more were kept)" if spent.kept else ""
        return (
            f"server {self._model}: {spent.calls:,} requests{kept}, {spent.prompt_tokens:,} prompt tokens, "
            f"{spent.reply_tokens:,} reply tokens, {_duration(spent.seconds)}{failures and f'; {failures}'}"
        )

    def numbers(self) -> dict[str, float]:
        """The costs of all processes of a run so far by name, from the kept replies; seconds are this process's."""
        kept = [] if self._replies is None else list(ReplyCache(self._replies).replies())
        return {
            "server_requests": float(len(kept)),
            "server_prompt_tokens": float(sum(reply.prompt_tokens for reply in kept)),
            "server_reply_tokens": float(sum(reply.tokens for reply in kept)),
            "server_seconds": self.costs.seconds,
            "server_failures": float(self.costs.failed.total()),
        }

    def _endpoint(self, sampling: Sampling) -> Endpoint:
        """The client for one way to sample.

        It remembers that the server has answered, so that some rows which it cannot answer do not stop a run. Where no
        reply is kept, each call stands alone: a server that has lost the model is found out.
        """
        found = self._endpoints.get(sampling)
        if found is None:
            keep = self._replies is not None
            config = self._config.client(
                self._model, temperature=sampling.temperature, max_tokens=sampling.max_new_tokens, cache=keep
            )
            found = Endpoint(config, self._replies)
            if keep:
                self._endpoints[sampling] = found
        return found

    def _estimate(self, asks: Sequence[Ask], sampling: Sampling, first: Reply, seconds: float) -> str:
        """One line: requests, tokens and seconds to expect, if the requests to come are like these."""
        count = max(self._expected, len(asks))
        characters = sum(len(ask.text) + sum(len(turn.text) for turn in ask.turns or ()) for ask in asks) / len(asks)
        pictures = " without the images" if any(ask.images for ask in asks) else ""
        whole = seconds * count / self._config.concurrency
        duration = "" if first.kept else f", about {_duration(whole)} (the first took {_duration(seconds)})"
        return (
            f"server {self._model}: about {count:,} requests, about {round(count * characters / _CHARACTERS):,} prompt "
            f"tokens{pictures}, at most {count * sampling.max_new_tokens:,} reply tokens{duration}"
        )


def server_request(request: GenerateRequest, sampling: Sampling) -> Ask:
    """A generation request as a request to a server.

    Raises:
        InputError: it needs the model in process.
    """
    if request.prefill or request.hidden:
        raise InputError("a server can neither hide image tokens nor continue a text; use a model in this process")
    options: list[tuple[str, object]] = [("top_p", sampling.top_p)] if sampling.top_p < 1 else []
    if sampling.stop:  # vLLM's argument keeps the stop string in the text, as `generate` does
        options += [("stop", list(sampling.stop)), ("extra_body", {"include_stop_str_in_output": True})]
    prefix = request.prefix
    return Ask(prefix.prompt, prefix.images, request.seed, prefix.history, tuple(options), aloud=True)


def generation_of(reply: Reply) -> Generation | FailedGeneration:
    """A server's reply as a generation.

    Templates such as LLaVA's put a space between "ASSISTANT:" and the answer, as a part of the answer's first token.
    vLLM returns that space; a model in this process returns the text after it, and so does this function.
    """
    text = reply.begun if reply.text is None else reply.text
    if text is None:
        return FailedGeneration(reply.note, may_pass=not reply.refused)
    return Generation(text.removeprefix(" "), reply.tokens, finished=reply.text is not None)


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < _SECONDS else f"{seconds / 3600:.1f} h"
