"""The client: many asks at once, each tried again with growing pauses, and every answer kept as it comes.

Retries are ours and not the `openai` package's: its pauses cannot be interrupted, and it gives up where a body is cut
off or is no JSON. One call is `call`; the answers on disk are `replies`.
"""

import contextlib
import random
import time
import uuid
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
from sightline.records.store import cache_directory

if TYPE_CHECKING:
    import openai

    from sightline.endpoint.call import Fault

K = TypeVar("K")
T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T, Event], R], items: Mapping[K, T], threads: int) -> Iterator[tuple[K, R]]:
    """`work(item, stop)` of every item, as they are finished; what one raises is raised here.

    After that, and when the caller leaves early, `stop` is set and no further item is begun. The threads are
    daemons and not an executor's: Python waits for those when it ends, and a call may take minutes.
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
                stop.set()  # here, lest another item is begun before the caller hears of it
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


class Kept(Row):
    """An answer; `check` is a hash of the rest."""

    text: str
    tokens: int
    cut_off: bool
    prompt_tokens: int = 0
    check: str = ""

    def checked(self) -> "Kept":
        """The same with its check."""
        fields = [self.text, self.tokens, self.cut_off]
        # Answers from before prompts were counted stay good.
        return self.model_copy(
            update={"check": hash_json([*fields, self.prompt_tokens] if self.prompt_tokens else fields)}
        )


class ReplyCache:
    """The answers in a directory. A full disk or a directory of no use stops nothing; one warning is given."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._warned = directory, False

    def get(self, key: str) -> Kept | None:
        """The answer, None where there is none or it is damaged."""
        try:
            kept = Kept.model_validate_json(self._path(key).read_bytes())
        except (OSError, ValidationError):
            return None
        return kept if kept == kept.checked() else None

    def put(self, key: str, kept: Kept) -> None:
        """Keep an answer, in one piece."""
        path = self._path(key)
        # Not `records.store.atomic_write`: its temporary name is the same for all writers, and these run side by side.
        temporary = path.with_name(f".{key}.{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(kept.checked().model_dump_json(), encoding="utf-8")
            temporary.replace(path)  # not synced: what a power failure tears, the check finds
        except OSError as error:
            if not self._warned:
                self._warned = True
                warnings.warn(f"answers cannot be kept in {self._directory} ({error.strerror})", stacklevel=2)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / f"{key}.json"


CUT_OFF = "cut off at max_tokens"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds between two tries: doubled each time, with jitter
LONGEST_WAIT = 120.0  # seconds a server may ask us to wait; beyond that the run stops
FAILURES = 8  # so many failed calls and not one answer: it is the server or the settings, not the rows


class Endpoint:
    """A server to ask. It may be asked from one thread at a time, and asks from several itself.

    Raises:
        InputError: the `openai` package is missing, or the key's variable is not set.
    """

    def __init__(self, config: EndpointConfig) -> None:
        try:
            import openai  # noqa: F401
        except ImportError as error:
            raise InputError("asking an endpoint needs: pip install 'sightline[judge]'") from error
        self.config = config
        self._key = config.key()
        self._cache = ReplyCache(cache_directory() / "endpoint") if config.cache else None
        self._answered, self._failed = False, 0
        self._free_at = 0.0  # monotonic time before which the server wants to be left alone
        self._lock = Lock()

    def ask(self, asks: Sequence[Ask]) -> list[Reply]:
        """One reply an ask, in order; the same is asked once.

        Raises:
            InputError: nobody is there, the key or the model is refused, the first `FAILURES` calls failed, the server
                wants a longer pause than `LONGEST_WAIT`, or an image cannot be opened. What was answered is kept.
        """
        keys = [ask.key(self.config) for ask in asks]
        kept = {} if self._cache is None else {key: self._cache.get(key) for key in dict.fromkeys(keys)}
        replies = {key: _reply(found, kept=True) for key, found in kept.items() if found is not None}
        # Else the few rows that a server can never answer would stop every later run that asks for them alone.
        self._answered = self._answered or bool(replies)
        missing = {key: (key, ask) for key, ask in zip(keys, asks, strict=True) if key not in replies}
        if missing:
            with self._open() as client:

                def work(item: tuple[str, Ask], stop: Event) -> Reply:
                    return self._ask(client, *item, stop)

                replies |= dict(in_threads(work, missing, self.config.concurrency))
        return [replies[key] for key in keys]

    def known(self, asks: Sequence[Ask]) -> int:
        """How many of them are answered on disk already; asks nobody."""
        if self._cache is None:
            return 0
        return sum(self._cache.get(ask.key(self.config)) is not None for ask in asks)

    def _open(self) -> "openai.OpenAI":
        """Opened for each batch, since a judge has no end at which to close it."""
        import openai

        return openai.OpenAI(
            base_url=self.config.base_url, api_key=self._key, timeout=self.config.timeout, max_retries=0
        )

    def _ask(self, client: "openai.OpenAI", key: str, ask: Ask, stop: Event) -> Reply:
        """Try until an answer comes, or no try is left."""
        from sightline.endpoint.call import Fault, call

        body, note = ask.body(self.config), ""
        for number in range(self.config.retries + 1):
            if stop.wait(max(0.0, self._free_at - time.monotonic())):
                return Reply(None, note="interrupted")
            try:
                completion = call(client, body, self.config.timeout)
            except Fault as fault:
                note = self._without_key(fault.note)
                self._stop_if_hopeless(fault, note, is_last=number == self.config.retries)
                if not fault.may_pass or number == self.config.retries:
                    break
                self._free_at = max(self._free_at, time.monotonic() + (fault.wait or 0.0))
                stop.wait(min(FIRST_PAUSE * 2**number, LONGEST_PAUSE) * random.uniform(0.5, 1))
            else:
                self._answered = True
                found = Kept(
                    text=completion.whole if ask.aloud else completion.text,
                    tokens=completion.tokens,
                    cut_off=completion.cut_off,
                    prompt_tokens=completion.prompt_tokens,
                )
                if self._cache is not None:
                    self._cache.put(key, found)
                return _reply(found)
        return Reply(None, note=note)

    def _stop_if_hopeless(self, fault: "Fault", note: str, *, is_last: bool) -> None:
        """Raise InputError for what concerns the server and not the one call."""
        config, place = self.config, f"the server at {self.config.base_url}"
        later = "run the same command again later" + ("; what was answered is kept" if config.cache else "")
        if fault.kind == "unreachable" and not self._answered:
            raise InputError(f"no server answers at {config.base_url} ({note}); start it, or correct base_url")
        if fault.kind == "unreachable" and is_last:
            raise InputError(f"{place} is gone ({note}); start it and {later}")
        if fault.status == 401:
            variable = config.api_key_env or "a variable that api_key_env names"
            raise InputError(f"{place} refuses the key ({note}); put a valid one into {variable}")
        if fault.status == 404 and not self._answered:
            raise InputError(f"{place} does not know {config.model!r} ({note}); correct model or base_url")
        if fault.wait is not None and fault.wait > LONGEST_WAIT:
            raise InputError(f"{place} wants a pause of {fault.wait:.0f} s ({note}); {later}")
        if fault.kind != "empty" and (is_last or not fault.may_pass):
            with self._lock:
                self._failed += 1
            if self._failed >= FAILURES and not self._answered:
                raise InputError(
                    f"{place} failed {self._failed} calls and answered none ({note}); mend it or the settings"
                )

    def _without_key(self, note: str) -> str:
        """Some servers repeat the key in their errors, and notes end up in files."""
        return note.replace(self._key, "***") if self.config.api_key_env else note


def _reply(found: Kept, *, kept: bool = False) -> Reply:
    """What was cut off is no answer: its last line may be half of another one."""
    text, note, begun = (None, CUT_OFF, found.text) if found.cut_off else (found.text, "", None)
    return Reply(text, found.tokens, note, begun, found.prompt_tokens, kept)
