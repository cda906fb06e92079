"""Answers on disk by content key, one small JSON file each: whoever asks the same again, asks the disk.

Any number of processes may share the directory. An entry that is damaged is asked for again; failures are never kept.
"""

import contextlib
import uuid
import warnings
from pathlib import Path

from pydantic import ValidationError

from sightline.records import Row, hash_json


class Kept(Row):
    """An answer; `check` is a hash of the rest."""

    text: str
    tokens: int
    cut_off: bool
    prompt_tokens: int = 0
    check: str = ""

    def checked(self) -> "Kept":
        """The same with its check."""
        said = [self.text, self.tokens, self.cut_off]
        # Answers from before prompts were counted stay good.
        return self.model_copy(update={"check": hash_json([*said, self.prompt_tokens] if self.prompt_tokens else said)})


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
        # Not `records.store.replacing`: its temporary name is the same for all writers, and these run side by side.
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
