"""Who answers an evaluation: the interface, and a server in the model's place.

`run` asks batch by batch. Answers that a server failed to give stay missing, and are unscored.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sightline.endpoint import GenerationServerConfig, ServedModel, find_served_model, load_adapter, unload_adapter
from sightline.errors import InputError
from sightline.generators.server import ServerCosts, ServerGenerator
from sightline.models.processes import Processes
from sightline.models.requests import FailedGeneration, GenerateRequest, Generation, Sampling

REPLIES = "replies"
REFUSED = "the server refuses to answer"
_ROUNDS = 4  # of the server's concurrency between two writes


class Answerer(ABC):
    """An open model, or a server. `batch_size` is the number of answers between two writes, `log` receives costs."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.costs = ServerCosts()
        self.log: Callable[[str], None] = lambda _: None

    @abstractmethod
    def open(self) -> object:
        """Make sure that it can answer, once.

        Raises:
            InputError: it cannot.
        """

    @abstractmethod
    def sample(self, requests: Sequence[GenerateRequest], most_tokens: int) -> list[Generation | FailedGeneration]:
        """One greedy answer of at most so many tokens per request, in order."""

    @abstractmethod
    def numbers(self) -> dict[str, float]:
        """Numbers for the manifest."""

    @contextmanager
    def ready(self, processes: Processes) -> Iterator[None]:  # noqa: ARG002 - for those that prepare something
        """Context in which answers are sampled; collective."""
        yield

    def announce(self, expected: int) -> None:  # noqa: B027 - an open model costs nothing
        """Have an estimate logged with the first of so many answers, if they cost something."""

    def report(self, costs: Sequence[ServerCosts]) -> None:  # noqa: B027
        """Log what all processes spent, if they spent something, and keep the sum in `costs`."""


class ServedAnswers(Answerer):
    """A model of a server, with an adapter that the server loads for the time of the run.

    Replies are kept in `out` until the evaluation is finished. `max_new_tokens` replaces the benchmarks' limits.
    """

    def __init__(
        self, server: GenerationServerConfig, out: Path, max_new_tokens: int | None = None, adapter: Path | None = None
    ) -> None:
        super().__init__(_ROUNDS * server.concurrency)
        self._server, self._out, self._limit, self._adapter = server, out, max_new_tokens, adapter
        self._generator: ServerGenerator | None = None
        self.served: ServedModel | None = None

    def open(self) -> ServedModel:
        if self.served is None:
            self.served = find_served_model(self._server)
        return self.served

    @contextmanager
    def ready(self, processes: Processes) -> Iterator[None]:
        """Context in which the server has the adapter, if there is one, which the first process has it load."""
        adapter = self._adapter
        if adapter is None:
            yield
            return
        client = self._server.client(self._name, temperature=0.0, max_tokens=1, cache=False)
        processes.on_first(lambda: load_adapter(client, self._name, adapter))
        try:
            yield
        finally:
            if processes.is_first:
                with suppress(InputError):  # a server that is gone has no adapter
                    unload_adapter(client, self._name)

    def announce(self, expected: int) -> None:
        if expected:
            self._opened.announce(expected, self.log)

    def sample(self, requests: Sequence[GenerateRequest], most_tokens: int) -> list[Generation | FailedGeneration]:
        return self._opened.sample(requests, Sampling(self._limit or most_tokens))

    def report(self, costs: Sequence[ServerCosts]) -> None:
        self.costs.replace_by(costs)
        self.log(self._opened.summary())
        if self.costs.unfinished:
            self.log(
                f"{self.costs.unfinished} answers may succeed later and are unscored; run the same command again to "
                "retry only these"
            )

    def numbers(self) -> dict[str, float]:
        return self._opened.numbers()

    @property
    def _opened(self) -> ServerGenerator:
        if self._generator is None:
            self._generator = ServerGenerator(self._server, self._name, self._out / REPLIES, self.costs)
        return self._generator

    @property
    def _name(self) -> str:
        """The model's name in requests: the adapter's, which is this directory's alone, if there is one."""
        if self._adapter is None:
            return self.open().name
        return f"sightline-{hashlib.sha256(str(self._out.absolute()).encode()).hexdigest()[:12]}"
