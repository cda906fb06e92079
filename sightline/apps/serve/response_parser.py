"""Parse the server's answer, a completion or a stream, for the log; and give it the served model's name.

Unreadable parts are left unknown.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sightline.apps.serve.config import ServeConfig
from sightline.apps.serve.request_parser import ChatRequest
from sightline.data.request_log import RequestLog, is_refusal, plain_yes, text_stats
from sightline.records.ratings import LoggedRequest
from sightline.records.rows import IMAGE

#: Bytes of an answer that are kept for the log; a longer stream is still forwarded.
MOST_BYTES = 8 * 2**20


@dataclass(frozen=True)
class ParsedResponse:
    """An answer as far as it arrived; `finished` is None if the server gave no finish reason."""

    text: str | None = None
    finished: bool | None = None
    tokens: int | None = None
    note: str = ""


def read_answer(data: bytes, *, is_stream: bool) -> ParsedResponse:
    """Parse the bytes of an answer."""
    pieces = list(parse_events(data)) if is_stream else [as_json(data)]
    texts: list[str] = []
    reason, tokens, note = None, None, ""
    for piece in pieces:
        if not isinstance(piece, dict):
            continue
        if (error := error_message(piece)) is not None:
            note = error
        usage = piece.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            tokens = usage["completion_tokens"]
        choices = piece.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        message = choice.get("delta" if is_stream else "message")
        if isinstance(message, dict) and isinstance(message.get("content"), str):
            texts.append(message["content"])
        if isinstance(choice.get("finish_reason"), str):
            reason = choice["finish_reason"]
    finished = None if reason is None else reason != "length"
    return ParsedResponse(_whole("".join(texts)) if texts else None, finished, tokens, note)


def parse_events(data: bytes) -> Iterator[Any]:
    """The JSON values of server-sent events; other lines are skipped, and a truncated last event is None."""
    for line in data.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"data:"):
            yield as_json(line[5:])


def as_json(data: bytes) -> Any:
    """Parse JSON; None if invalid."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # "[DONE]", a truncated event, or not JSON
        return None


def error_message(piece: dict[str, Any]) -> str | None:
    """The message of an error in OpenAI's or FastAPI's format; None if there is none."""
    error = piece.get("error", piece.get("detail"))
    if error is None:
        return None
    return _whole(" ".join(str(error.get("message", error) if isinstance(error, dict) else error).split())[:300])


def _whole(text: str) -> str:
    """The text without lone surrogates, which JSON can express and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True)
class Ending:
    """The end of a call: parsed response, status, duration, and the error that interrupted it, if any."""

    response: ParsedResponse
    status: int
    seconds: float
    note: str = ""


def log_row(call_id: str, time: datetime, request: ChatRequest, ending: Ending, config: ServeConfig) -> LoggedRequest:
    """The log row of a call, redacted as configured; text statistics are kept."""
    response = ending.response
    keeps_prompt, keeps_answer = config.redact == "nothing", config.redact != "texts"
    return LoggedRequest(
        id=call_id,
        time=time.astimezone(UTC).isoformat(timespec="seconds"),
        model=request.model,
        images=request.pictures,
        history=request.history if keeps_prompt else None,
        prompt=request.prompt if keeps_prompt else None,
        answer=response.text if keeps_answer else None,
        prompt_stats=text_stats(request.prompt.replace(IMAGE, " ")),
        answer_stats=None if response.text is None else text_stats(response.text),
        yes=None if response.text is None else plain_yes(response.text),
        refused=None if response.text is None else is_refusal(response.text),
        finished=response.finished,
        tokens=response.tokens,
        status=ending.status,
        seconds=round(ending.seconds, 3),
        kept=config.keep_images,
        note=ending.note or response.note,
    )


def write_call(log: RequestLog, row: LoggedRequest, request: ChatRequest) -> None:
    """Write a row to the log, after its pictures if they are kept, so that a row never names a missing file."""
    if row.kept:
        for picture, data in zip(request.pictures, request.data, strict=True):
            log.keep(picture.sha256, data)
    log.add(row)


@dataclass
class LogFailures:
    """Counts rows that could not be logged; the first failure is reported."""

    report: Callable[[str], None]
    count: int = 0
    reason: str = ""

    def note(self, error: Exception) -> None:
        """Count a lost row."""
        self.reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        self.count += 1
        if self.count == 1:
            self.report(
                f"warning: the log cannot be written ({self.reason}); serving continues, and GET /health reports "
                "the number of lost rows"
            )


def with_model_name(data: bytes, model: str) -> bytes:
    """Set `model` in a JSON object; any other data are returned unchanged."""
    value = as_json(data)
    if not isinstance(value, dict) or value.get("model", model) == model:
        return data
    return json.dumps({**value, "model": model}, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


class StreamRenamer:
    """Sets the served model's name in each event of a stream, as soon as the event is complete."""

    def __init__(self, model: str) -> None:
        self._model, self._kept = model, b""

    def feed(self, part: bytes) -> bytes:
        """The lines completed by this part."""
        whole, newline, self._kept = (self._kept + part).rpartition(b"\n")
        if not newline and len(self._kept) > MOST_BYTES:  # not an event stream
            return self.rest()
        return b"".join(self._line(line) + b"\n" for line in whole.split(b"\n")) if newline else b""

    def rest(self) -> bytes:
        """The remaining bytes at the end."""
        kept, self._kept = self._kept, b""
        return kept

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(b"data:"):
            return line
        head, data = (b"data: ", line[6:]) if line.startswith(b"data: ") else (b"data:", line[5:])
        return head + with_model_name(data, self._model)


def join_stream(data: bytes) -> tuple[int, bytes]:
    """Assemble a stream into one completion; returns status and body."""
    texts: list[str] = []
    thoughts: list[str] = []
    head: dict[str, Any] = {}
    reason, usage = None, None
    for event in parse_events(data):
        if not isinstance(event, dict):
            continue
        if (error := error_message(event)) is not None:
            return _failed(500, f"the model server failed on this request ({error})")
        head = head or {key: event[key] for key in ("id", "created", "model") if key in event}
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            texts.append(delta.get("content") or "")
            thoughts.append(delta.get("reasoning_content") or "")
            reason = choice.get("finish_reason") or reason
    if reason is None:
        return _failed(502, "the model server broke off")
    message = {"role": "assistant", "content": "".join(texts)}
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    completion = {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": usage,
    }
    return 200, json.dumps(completion).encode()


def failure(status: int, sentence: str) -> dict[str, Any]:
    """An error in OpenAI's format."""
    return {"error": {"message": sentence, "type": "sightline", "code": status}}


def _failed(status: int, sentence: str) -> tuple[int, bytes]:
    return status, json.dumps(failure(status, sentence)).encode()
