"""A call and its answer as a row of the log, with or without the words: what `proxy` writes when an answer is over."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sightline.apps.serve.asking import Asked
from sightline.apps.serve.config import ServeConfig
from sightline.apps.serve.telling import Told
from sightline.data.measures import is_refusal, plain_yes, wording_of
from sightline.data.request_log import RequestLog
from sightline.records.requests import Served
from sightline.records.rows import IMAGE


@dataclass(frozen=True)
class Ending:
    """How a call ended: what was told, its status, how long it took, and what broke it off, if anything did."""

    told: Told
    status: int
    seconds: float
    note: str = ""


def served_row(call_id: str, time: datetime, asked: Asked, ending: Ending, config: ServeConfig) -> Served:
    """The row of a call, redacted as the config says; measures stay."""
    told = ending.told
    keeps_prompt, keeps_answer = config.redact == "nothing", config.redact != "texts"
    return Served(
        id=call_id,
        time=time.astimezone(UTC).isoformat(timespec="seconds"),
        model=asked.model,
        images=asked.pictures,
        history=asked.history if keeps_prompt else None,
        prompt=asked.prompt if keeps_prompt else None,
        answer=told.text if keeps_answer else None,
        asked=wording_of(asked.prompt.replace(IMAGE, " ")),
        said=None if told.text is None else wording_of(told.text),
        yes=None if told.text is None else plain_yes(told.text),
        refused=None if told.text is None else is_refusal(told.text),
        finished=told.finished,
        tokens=told.tokens,
        status=ending.status,
        seconds=round(ending.seconds, 3),
        kept=config.keep_images,
        note=ending.note or told.note,
    )


def write_call(log: RequestLog, row: Served, asked: Asked) -> None:
    """Put a row into the log, after its pictures, if they are kept: a row never names what is not there."""
    if row.kept:
        for picture, data in zip(asked.pictures, asked.data, strict=True):
            log.keep(picture.sha256, data)
    log.add(row)


@dataclass
class Losses:
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
