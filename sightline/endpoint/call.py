"""One HTTP call: a completion, or a `Fault` with the cause and whether to retry.

`client` decides how to handle a fault.
"""

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx2
import openai
from pydantic import BaseModel, ValidationError

#: unreachable: no connection. refused: a client error (4xx). busy: retry later (429, 503). broken: any other transient
#: error. empty: a completion without text.
Kind = Literal["unreachable", "refused", "busy", "broken", "empty"]
#: 4xx statuses that are worth a retry.
_PASSING = (408, 409, 425)
#: 4xx statuses about the content of a request, such as a prompt that is too long.
_OWN_FAULT = (400, 413, 415, 422)
#: The reasoning block that some servers leave in the text of a reasoning model.
_THINKING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)


@dataclass
class Fault(Exception):
    """The cause of a failed call. `wait` is the pause in seconds that the server asks for."""

    kind: Kind
    note: str
    status: int | None = None
    wait: float | None = None

    @property
    def may_pass(self) -> bool:
        """Whether a retry may succeed."""
        return self.kind in ("unreachable", "busy", "broken")

    @property
    def is_final(self) -> bool:
        """Whether the same request would fail on any later day: it is at fault, and not the server or the key."""
        return self.kind == "empty" or self.status in _OWN_FAULT


class Completion(BaseModel):
    """The fields of a chat completion that are read; servers add fields, and some omit required ones."""

    class Choice(BaseModel):
        """The only choice."""

        class Message(BaseModel):
            """Text or a refusal."""

            content: str | None = None
            refusal: str | None = None

        message: Message
        finish_reason: str | None = None

    class Usage(BaseModel):
        """Token counts."""

        prompt_tokens: int | None = None
        completion_tokens: int = 0

    choices: list[Choice]
    usage: Usage | None = None

    @property
    def whole(self) -> str:
        """The whole text."""
        return self.choices[0].message.content or ""

    @property
    def text(self) -> str:
        """The text without its reasoning block."""
        return _THINKING.sub("", self.whole).strip()

    @property
    def cut_off(self) -> bool:
        """Whether the token limit cut the reply off."""
        return self.choices[0].finish_reason == "length"

    @property
    def tokens(self) -> int:
        """Tokens of the reply, 0 if the server does not report them."""
        return self.usage.completion_tokens if self.usage else 0

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, 0 if the server does not report them."""
        return (self.usage.prompt_tokens or 0) if self.usage else 0


def call(client: openai.OpenAI, body: dict[str, Any], timeout: float, *, whole: bool = False) -> Completion:
    """Send one request and wait at most `timeout` seconds (up to twice that if the first byte arrives late).

    With `whole` a model that ends its turn at once has answered: with nothing.

    Raises:
        Fault: no completion with text was returned.
    """
    try:
        completion = _read(_fetch(client, body, timeout))
    except openai.APIStatusError as error:
        raise _status_fault(error) from error
    except (openai.APITimeoutError, httpx2.TimeoutException, TimeoutError) as error:
        if _never_connected(error):
            raise Fault("unreachable", "connection timed out") from error
        raise Fault("broken", f"no answer within {timeout:g} s") from error
    except (openai.APIConnectionError, httpx2.HTTPError, httpx2.StreamError) as error:
        cause = error.__cause__ or error
        detail = _short(str(cause)) or type(cause).__name__
        raise Fault("unreachable" if _never_connected(error) else "broken", f"connection failed ({detail})") from error
    choice = completion.choices[0]
    ended = whole and not choice.message.refusal and (completion.whole or choice.finish_reason == "stop")
    if completion.text or completion.cut_off or ended:
        return completion
    reason = choice.message.refusal or choice.finish_reason or "no reason given"
    raise Fault("empty", f"empty reply ({_short(reason)})")


def _fetch(client: openai.OpenAI, body: dict[str, Any], timeout: float) -> bytes:
    """The response bytes, read in parts: the client's timeout applies between parts, and a server may trickle them."""
    deadline, parts = time.monotonic() + timeout, list[bytes]()
    with client.chat.completions.with_streaming_response.create(**body) as response:
        for part in response.iter_bytes():
            parts.append(part)
            if time.monotonic() > deadline:
                raise TimeoutError
    return b"".join(parts)


def _read(data: bytes) -> Completion:
    try:
        completion = Completion.model_validate_json(data)
    except ValidationError as error:
        shown = _short(data[:200].decode("utf-8", errors="replace"))
        raise Fault("broken", f"the response is not a chat completion: {shown!r}") from error
    if not completion.choices:
        raise Fault("broken", "the completion has no choices")
    return completion


def _status_fault(error: openai.APIStatusError) -> Fault:
    status = error.status_code
    message = error.body.get("message") if isinstance(error.body, dict) else None
    note = f"status {status}: {_short(str(message or error.response.text))}"
    if status in (429, 503):
        return Fault("busy", note, status, _wait(error.response.headers.get("retry-after")))
    return Fault("broken" if status >= 500 or status in _PASSING else "refused", note, status)


def _wait(header: str | None) -> float | None:
    """The seconds of a Retry-After header, which is a number or a date."""
    if header is None:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", header.strip()):
        return float(header)
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, (date.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _never_connected(error: BaseException) -> bool:
    return isinstance(error.__cause__ or error, httpx2.ConnectError | httpx2.ConnectTimeout)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else line[:197] + "..."
