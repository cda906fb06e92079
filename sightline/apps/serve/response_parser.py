"""What a server said, read from the bytes that went by: one completion, or a stream of its pieces.

Nothing here changes a byte, and what cannot be read is simply not known.
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

#: More of an answer is passed on, and not remembered.
MOST_BYTES = 8 * 2**20


@dataclass(frozen=True)
class ParsedResponse:
    """An answer as far as it came; `finished` is None where the server did not say how it ended."""

    text: str | None = None
    finished: bool | None = None
    tokens: int | None = None
    note: str = ""


def read_answer(data: bytes, *, is_stream: bool) -> ParsedResponse:
    """What the bytes of an answer say."""
    pieces = list(events_of(data)) if is_stream else [as_json(data)]
    texts: list[str] = []
    reason, tokens, note = None, None, ""
    for piece in pieces:
        if not isinstance(piece, dict):
            continue
        if (error := error_of(piece)) is not None:
            note = error
        usage = piece.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("completion_tokens"), int):
            tokens = usage["completion_tokens"]
        choices = piece.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        said = choice.get("delta" if is_stream else "message")
        if isinstance(said, dict) and isinstance(said.get("content"), str):
            texts.append(said["content"])
        if isinstance(choice.get("finish_reason"), str):
            reason = choice["finish_reason"]
    finished = None if reason is None else reason != "length"
    return ParsedResponse(_whole("".join(texts)) if texts else None, finished, tokens, note)


def events_of(data: bytes) -> Iterator[Any]:
    """The JSON values of server-sent events; what stands in no event is left out, and so is a torn last one."""
    for line in data.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"data:"):
            yield as_json(line[5:])


def as_json(data: bytes) -> Any:
    """A JSON value, None where it is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # "[DONE]", a torn event, or no JSON at all
        return None


def error_of(piece: dict[str, Any]) -> str | None:
    """What an error says, in OpenAI's form or FastAPI's; None where a piece tells none."""
    error = piece.get("error", piece.get("detail"))
    if error is None:
        return None
    return _whole(" ".join(str(error.get("message", error) if isinstance(error, dict) else error).split())[:300])


def _whole(text: str) -> str:
    """A text without lone surrogates, which JSON can say and no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclass(frozen=True)
class Ending:
    """How a call ended: what was told, its status, how long it took, and what broke it off, if anything did."""

    told: ParsedResponse
    status: int
    seconds: float
    note: str = ""


def served_row(call_id: str, time: datetime, asked: ChatRequest, ending: Ending, config: ServeConfig) -> LoggedRequest:
    """The row of a call, redacted as the config says; measures stay."""
    told = ending.told
    keeps_prompt, keeps_answer = config.redact == "nothing", config.redact != "texts"
    return LoggedRequest(
        id=call_id,
        time=time.astimezone(UTC).isoformat(timespec="seconds"),
        model=asked.model,
        images=asked.pictures,
        history=asked.history if keeps_prompt else None,
        prompt=asked.prompt if keeps_prompt else None,
        answer=told.text if keeps_answer else None,
        prompt_stats=text_stats(asked.prompt.replace(IMAGE, " ")),
        answer_stats=None if told.text is None else text_stats(told.text),
        yes=None if told.text is None else plain_yes(told.text),
        refused=None if told.text is None else is_refusal(told.text),
        finished=told.finished,
        tokens=told.tokens,
        status=ending.status,
        seconds=round(ending.seconds, 3),
        kept=config.keep_images,
        note=ending.note or told.note,
    )


def write_call(log: RequestLog, row: LoggedRequest, asked: ChatRequest) -> None:
    """Put a row into the log, after its pictures, if they are kept: a row never names what is not there."""
    if row.kept:
        for picture, data in zip(asked.pictures, asked.data, strict=True):
            log.keep(picture.sha256, data)
    log.add(row)


@dataclass
class LogFailures:
    """What a log could not take. Answers do not wait for the log; the first loss is reported, all are counted."""

    report: Callable[[str], None]
    count: int = 0
    reason: str = ""

    def note(self, error: Exception) -> None:
        """Count a row that was not written."""
        self.reason = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        self.count += 1
        if self.count == 1:
            self.report(
                f"warning: the log cannot be written ({self.reason}); answers go on without it, and GET /health counts "
                "the rows that are lost"
            )


def named(data: bytes, model: str) -> bytes:
    """A JSON object with `model` as its model; whatever else it is, or says so already, stays as it is."""
    value = as_json(data)
    if not isinstance(value, dict) or value.get("model", model) == model:
        return data
    return json.dumps({**value, "model": model}, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


class Naming:
    """Gives each event of a stream the served model's name, as soon as the event is complete."""

    def __init__(self, model: str) -> None:
        self._model, self._kept = model, b""

    def feed(self, part: bytes) -> bytes:
        """The lines that are complete with this part."""
        whole, newline, self._kept = (self._kept + part).rpartition(b"\n")
        if not newline and len(self._kept) > MOST_BYTES:  # no stream of events
            return self.rest()
        return b"".join(self._line(line) + b"\n" for line in whole.split(b"\n")) if newline else b""

    def rest(self) -> bytes:
        """What is left at the end."""
        kept, self._kept = self._kept, b""
        return kept

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(b"data:"):
            return line
        head, data = (b"data: ", line[6:]) if line.startswith(b"data: ") else (b"data:", line[5:])
        return head + named(data, self._model)


def completion_of(data: bytes) -> tuple[int, bytes]:
    """Status and body of the whole answer that a stream told piece by piece."""
    texts: list[str] = []
    thoughts: list[str] = []
    head: dict[str, Any] = {}
    reason, usage = None, None
    for event in events_of(data):
        if not isinstance(event, dict):
            continue
        if (error := error_of(event)) is not None:
            return _failed(500, f"the model's server failed on this request ({error})")
        head = head or {key: event[key] for key in ("id", "created", "model") if key in event}
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            texts.append(delta.get("content") or "")
            thoughts.append(delta.get("reasoning_content") or "")
            reason = choice.get("finish_reason") or reason
    if reason is None:
        return _failed(502, "the model's server broke off")
    message = {"role": "assistant", "content": "".join(texts)}
    if any(thoughts):
        message["reasoning_content"] = "".join(thoughts)
    made = {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": usage,
    }
    return 200, json.dumps(made).encode()


def failure(status: int, sentence: str) -> dict[str, Any]:
    """An error in the form of OpenAI's."""
    return {"error": {"message": sentence, "type": "sightline", "code": status}}


def _failed(status: int, sentence: str) -> tuple[int, bytes]:
    return status, json.dumps(failure(status, sentence)).encode()
