"""What a server said, read from the bytes that went by: one completion, or a stream of its pieces.

Nothing here changes a byte, and what cannot be read is simply not known.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

#: More of an answer is passed on, and not remembered.
MOST_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Told:
    """An answer as far as it came; `finished` is None where the server did not say how it ended."""

    text: str | None = None
    finished: bool | None = None
    tokens: int | None = None
    note: str = ""


def read_answer(data: bytes, *, is_stream: bool) -> Told:
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
    return Told(_whole("".join(texts)) if texts else None, finished, tokens, note)


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
