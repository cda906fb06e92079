"""Concurrent requests with retries, exponential backoff and a cache of replies on disk.

The retries of the `openai` package are not used: its pauses cannot be interrupted, and it does not retry a truncated or
malformed body. `call` sends one request. Any number of processes may share the cache.
"""

import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from sightline.endpoint.config import EndpointConfig
from sightline.endpoint.request import Ask, Reply
from sightline.errors import InputError
from sightline.records import Row, hash_json
from sightline.records.concurrent import concurrent_atomic_write, remove_leftovers_below
from sightline.records.store import cache_directory

if TYPE_CHECKING:
    import openai

    from sightline.endpoint.call import Fault

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T, Event], R], items: Mapping[K, T], threads: int) -> Iterator[tuple[K, R]]:
    """Yield `work(item, stop)` of every item as it finishes; an exception in a thread is raised here.

    After an exception, and if the caller stops early, `stop` is set and no further item is started. Daemon threads are
    used instead of an executor, because Python waits for executors at exit and a call may take minutes.
    """
    waiting, finished, stop = SimpleQueue[tuple[K, T]](), SimpleQueue[tuple[K, Future[R]]](), Event()
    for item in items.items():
        waiting.put(item)

    def run() -> None:
        while not stop.is_set():
            try:
                key, item = waiting.get_nowait()
            except Empty:
                return
            result = Future[R]()
            try:
                result.set_result(work(item, stop))
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                stop.set()  # set here, so that no item starts before the caller sees the exception
                result.set_exception(error)
            finished.put((key, result))

    for _ in range(min(threads, len(items))):
        Thread(target=run, daemon=True).start()
    try:
        for _ in items:
            key, result = finished.get()
            yield key, result.result()
    finally:
        stop.set()


class CachedReply(Row):
    """A reply on disk; `check` is a hash of the other fields."""

    text: str
    tokens: int
    cut_off: bool
    prompt_tokens: int = 0
    check: str = ""

    def with_check(self) -> "CachedReply":
        """A copy with its check computed."""
        fields = [self.text, self.tokens, self.cut_off]
        # Replies cached before prompt tokens were counted stay valid.
        return self.model_copy(
            update={"check": hash_json([*fields, self.prompt_tokens] if self.prompt_tokens else fields)}
        )


class ReplyCache:
    """The cached replies in a directory. A full disk or unusable directory causes one warning and stops nothing.

    Temporary files that killed processes left are removed when the cache is opened.
    """

    def __init__(self, directory: Path) -> None:
        self._directory, self._warned = directory, False
        remove_leftovers_below(directory)

    def get(self, key: str) -> CachedReply | None:
        """The reply, None if it is missing or damaged."""
        try:
            reply = CachedReply.model_validate_json(self._path(key).read_bytes())
        except (OSError, ValidationError):
            return None
        return reply if reply == reply.with_check() else None

    def put(self, key: str, reply: CachedReply) -> None:
        """Store a reply atomically; threads and processes may store the same one at once."""
        try:
            # Not synced: the check detects a file torn by a power failure.
            with concurrent_atomic_write(self._path(key)) as temporary:
                temporary.write_text(reply.with_check().model_dump_json(), encoding="utf-8")
        except OSError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(f"answers cannot be kept in {self._directory} ({error.strerror})", stacklevel=2)

    def replies(self) -> Iterator[CachedReply]:
        """All replies that are not damaged."""
        for path in sorted(self._directory.glob("*/*.json")):
            found = self.get(path.stem)
            if found is not None:
                yield found

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / f"{key}.json"


CUT_OFF = "cut off at max_tokens"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between retries: doubled each time, with jitter
LONGEST_WAIT = 120.0  # seconds a server may ask us to wait; the run stops if it asks for more
FAILURES = 8  # this many failed calls without a single answer indicate a bad server or config


class Endpoint:
    """A client of one server. Call it from one thread at a time; it sends requests from several threads.

    Replies are cached in the directory `replies`, by default one for all runs.

    Raises:
        InputError: the `openai` package is missing, or the variable of the API key is not set.
    """

    def __init__(self, config: EndpointConfig, replies: Path | None = None) -> None:
        try:
            import openai  # noqa: F401
        except ImportError as error:
            raise InputError("an endpoint needs the openai package: pip install 'sightline[judge]'") from error
        self.config = config
        self._key = config.key()
        self._cache = ReplyCache(replies or cache_directory() / "endpoint") if config.cache else None
        self._answered, self._failed = False, 0
        self._free_at = 0.0  # monotonic time until which the server wants no requests
        self._lock = Lock()

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """One reply per request, in order; duplicates are sent once.

        Raises:
            InputError: the server is unreachable, rejects the key or the model, failed the first `FAILURES` calls or
                asks for a pause above `LONGEST_WAIT`, or an image cannot be opened. Earlier replies stay cached.
        """
        keys = [ask.key(self.config) for ask in asks]
        cached = {} if self._cache is None else {key: self._cache.get(key) for key in dict.fromkeys(keys)}
        replies = {key: _reply(found, kept=True) for key, found in cached.items() if found is not None}
        # Otherwise a few rows that a server can never answer would stop every later run that requests only them.
        self._answered = self._answered or bool(replies)
        missing = {key: (key, ask) for key, ask in zip(keys, asks, strict=True) if key not in replies}
        if missing:
            with self._open() as client:

                def work(item: tuple[str, Ask], stop: Event) -> Reply:
                    return self._ask(client, *item, stop)

                replies |= dict(in_threads(work, missing, self.config.concurrency))
        return [replies[key] for key in keys]

    def count_cached(self, asks: Sequence[Ask]) -> int:
        """The number of requests whose replies are cached; sends none."""
        if self._cache is None:
            return 0
        return sum(self._cache.get(ask.key(self.config)) is not None for ask in asks)

    def _open(self) -> "openai.OpenAI":
        """A client for one batch: a judge has no `close` that could close a permanent one."""
        import openai

        return openai.OpenAI(
            base_url=self.config.base_url, api_key=self._key, timeout=self.config.timeout, max_retries=0
        )

    def _ask(self, client: "openai.OpenAI", key: str, ask: Ask, stop: Event) -> Reply:
        """Send a request, with retries."""
        from sightline.endpoint.call import Fault, call

        body, note, refused = ask.body(self.config), "", False
        for number in range(self.config.retries + 1):
            if stop.wait(max(0.0, self._free_at - time.monotonic())):
                return Reply(None, note="interrupted")
            try:
                completion = call(client, body, self.config.timeout, whole=ask.aloud)
            except Fault as fault:
                note, refused = self._without_key(fault.note), fault.is_final
                self._stop_if_hopeless(fault, note, is_last=number == self.config.retries)
                if not fault.may_pass or number == self.config.retries:
                    break
                self._free_at = max(self._free_at, time.monotonic() + (fault.wait or 0.0))
                stop.wait(min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) * random.uniform(0.5, 1))
            else:
                self._answered = True
                found = CachedReply(
                    text=completion.whole if ask.aloud else completion.text,
                    tokens=completion.tokens,
                    cut_off=completion.cut_off,
                    prompt_tokens=completion.prompt_tokens,
                )
                if self._cache is not None:
                    self._cache.put(key, found)
                return _reply(found)
        return Reply(None, note=note, refused=refused)

    def _stop_if_hopeless(self, fault: "Fault", note: str, *, is_last: bool) -> None:
        """Raise InputError if the fault concerns the server and not the single call."""
        config, place = self.config, f"the server at {self.config.base_url}"
        later = "run the same command again later" + ("; answers so far are cached" if config.cache else "")
        if fault.kind == "unreachable" and not self._answered:
            raise InputError(f"no server answers at {config.base_url} ({note}); start it, or correct base_url")
        if fault.kind == "unreachable" and is_last:
            raise InputError(f"{place} is gone ({note}); start it and {later}")
        if fault.status == 401:
            variable = config.api_key_env or "a variable that api_key_env names"
            raise InputError(f"{place} rejects the API key ({note}); set a valid one in {variable}")
        if fault.status == 404 and not self._answered:
            raise InputError(f"{place} does not know {config.model!r} ({note}); correct model or base_url")
        if fault.wait is not None and fault.wait > LONGEST_WAIT:
            raise InputError(f"{place} asks for a pause of {fault.wait:.0f} s ({note}); {later}")
        if fault.kind != "empty" and (is_last or not fault.may_pass):
            with self._lock:
                self._failed += 1
            if self._failed >= FAILURES and not self._answered:
                raise InputError(
                    f"{place} failed {self._failed} calls and answered none ({note}); fix it or the config"
                )

    def _without_key(self, note: str) -> str:
        """The note without the API key: some servers repeat it in errors, and notes end up in files."""
        return note.replace(self._key, "***") if self.config.api_key_env else note


def _reply(found: CachedReply, *, kept: bool = False) -> Reply:
    """A reply; one that was cut off has no text, since its last line may be incomplete."""
    text, note, begun = (None, CUT_OFF, found.text) if found.cut_off else (found.text, "", None)
    return Reply(text, found.tokens, note, begun, found.prompt_tokens, kept)
