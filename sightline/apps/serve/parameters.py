"""The parameters of a chat completion beside its messages: which are taken, of what type and size.

They come from anywhere, so what is not listed is refused: servers take more than OpenAI's (chat templates, generation
configs, schemas), and each of these is a way to make a server work or break.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sightline.apps.serve.config import ServeConfig
from sightline.apps.serve.refusing import Refused
from sightline.config.problems import describe

_Stop = Annotated[str, Field(min_length=1, max_length=200)]
_Bias = Annotated[float, Field(ge=-100, le=100)]
_HUGE = 2**63


class StreamOptions(BaseModel):
    """What a stream tells beside the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    include_usage: bool | None = None


class Parameters(BaseModel):
    """What may be asked for; None is the same as leaving it out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-_HUGE, lt=_HUGE)
    stop: _Stop | list[_Stop] | None = Field(default=None, max_length=16)
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], _Bias] | None = Field(default=None, max_length=300)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    n: Literal[1] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, max_length=1000)


#: Taken, and not passed on: the server has nothing to do with them.
_OURS = {"max_completion_tokens", "n", "user"}


def read_parameters(told: dict[str, Any], config: ServeConfig) -> dict[str, Any]:
    """What is passed on of the parameters in `told`; the number of tokens is always said.

    Raises:
        Refused: a parameter is unknown, of another type or beyond its limits; the sentence names it.
    """
    unknown = sorted(told.keys() - Parameters.model_fields.keys())
    if unknown:
        raise Refused(
            400,
            f"parameter {unknown[0][:60]!r} is not taken; leave it out (taken: {', '.join(Parameters.model_fields)})",
        )
    try:
        read = Parameters.model_validate(told)
    except ValidationError as error:
        raise Refused(400, f"parameter {describe(error, Parameters, told)}") from error
    named = [value for value in (read.max_completion_tokens, read.max_tokens) if value is not None]
    tokens = named[0] if named else min(config.default_tokens, config.max_tokens)
    if tokens > config.max_tokens:
        name = "max_tokens" if read.max_completion_tokens is None else "max_completion_tokens"
        raise Refused(
            400, f"parameter {name} = {tokens}: an answer may have {config.max_tokens} tokens here; ask for less"
        )
    passed_on = read.model_dump(exclude_none=True, exclude=_OURS)
    return passed_on | {"max_tokens": tokens}


def whole_number(text: str) -> int | float:
    """An integer of JSON; one that no parameter can be stays too large without being read."""
    return int(text) if len(text) <= 20 else math.inf
