"""Server-sent events of a chat completion: cut from a stream of bytes, given the served model's name, put together.

Transformers stops generating when the reader of a stream leaves, and not when that of a whole answer does. So it is
always asked for a stream, and who asked for a whole answer gets what `completion_of` makes of it.
"""

import json
from typing import Any

from sightline.apps.serve.telling import MOST_BYTES, as_json, error_of, events_of


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
