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
    pieces = list(_events(data)) if is_stream else [_json(data)]
    texts: list[str] = []
    reason, tokens, note = None, None, ""
    for piece in pieces:
        if not isinstance(piece, dict):
            continue
        if (error := piece.get("error", piece.get("detail"))) is not None:  # OpenAI's form, and FastAPI's
            note = " ".join(str(_message(error)).split())[:300]
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
    return Told("".join(texts) if texts else None, finished, tokens, note)


def _events(data: bytes) -> Iterator[Any]:
    """The JSON values of server-sent events; what stands in no event is left out, and so is a torn last one."""
    for line in data.replace(b"\r\n", b"\n").split(b"\n"):
        if line.startswith(b"data:"):
            yield _json(line[5:])


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # "[DONE]", a torn event, or no JSON at all
        return None


def _message(error: Any) -> Any:
    return error.get("message", error) if isinstance(error, dict) else error
