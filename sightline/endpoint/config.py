"""The config section of an OpenAI-compatible server."""

import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from sightline.config import Config
from sightline.errors import InputError
from sightline.records import hash_json


def _checked_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not contain a password, since configs are written to manifests; use api_key_env")
    return value.rstrip("/")


def _key_in(variable: str | None) -> str:
    """The key in an environment variable; "none" if none is named."""
    if variable is None:
        return "none"
    key = os.environ.get(variable, "").strip()
    if not key:
        raise InputError(f"api_key_env names the environment variable {variable}, which is not set; export it")
    return key


#: The address of a server's API, such as http://127.0.0.1:8000/v1, without a slash at its end.
Address = Annotated[str, AfterValidator(_checked_address)]
LimitName = Literal["max_tokens", "max_completion_tokens"]


class EndpointConfig(Config):
    """A server with OpenAI's chat completions API: vLLM, SGLang, `transformers serve`, llama.cpp or a hosted one."""

    base_url: Address = Field(description="such as http://127.0.0.1:8000/v1")
    model: str = Field(min_length=1, description="the server's model name; cached answers are stored under it")
    api_key_env: str | None = Field(
        default=None, pattern=r"^[A-Za-z_]\w*$", description="environment variable that holds the key, never the key"
    )
    temperature: float | None = Field(default=0.0, ge=0, description="null: not sent, for models that reject it")
    seed: int | None = Field(default=0, ge=0, lt=2**31, description="null: not sent, for servers that reject it")
    max_tokens: int = Field(default=512, gt=0, description="token limit of a reply; a longer reply counts as failed")
    limit_name: LimitName = Field(
        default="max_tokens", description="the server's name of that limit; OpenAI's newer models need the second"
    )
    max_side: int = Field(default=1024, ge=16, description="larger pictures are scaled down to this many pixels")
    timeout: float = Field(default=120, gt=0, description="seconds for one call")
    retries: int = Field(default=4, ge=0, description="retries of a failed call")
    concurrency: int = Field(default=8, ge=1, le=256, description="concurrent calls")
    cache: bool = Field(default=True, description="cache answers on disk and reuse them")

    @property
    def identity(self) -> str:
        """A hash of everything that determines an answer; address, timeout and retries are not part of it."""
        deciding = {"model", "temperature", "seed", "max_tokens", "max_side"}
        return hash_json(self.model_dump(mode="json", include=deciding))

    def key(self) -> str:
        """The API key; "none" for local servers, which accept any.

        Raises:
            InputError: the environment variable is not set.
        """
        return _key_in(self.api_key_env)


class GenerationServerConfig(Config):
    """A server that answers prompts in place of an open model: vLLM, SGLang, `sightline serve`, or a hosted one.

    Temperature, top_p, token limit, stop strings and seeds are those of whoever asks.
    """

    base_url: Address = Field(description="such as http://127.0.0.1:8000/v1")
    model: str | None = Field(default=None, min_length=1, description="null: the one model that the server lists")
    api_key_env: str | None = Field(
        default=None, pattern=r"^[A-Za-z_]\w*$", description="environment variable that holds the key, never the key"
    )
    concurrency: int = Field(default=32, ge=1, le=256, description="concurrent calls")
    timeout: float = Field(default=300, gt=0, description="seconds for one call")
    retries: int = Field(default=4, ge=0, description="retries of a failed call")
    max_side: int = Field(default=4096, ge=16, description="larger pictures are scaled down to this many pixels")
    send_temperature: bool = Field(default=True, description="false for models that reject a temperature")
    send_seed: bool = Field(default=True, description="false for servers that reject a seed")
    limit_name: LimitName = Field(
        default="max_tokens", description="the server's name of the token limit; OpenAI's newer models need the second"
    )

    def client(self, model: str, *, temperature: float, max_tokens: int, cache: bool) -> EndpointConfig:
        """The client's config for the model of that name and one way to sample."""
        return EndpointConfig(
            **self.model_dump(include={"base_url", "api_key_env", "concurrency", "timeout", "retries", "max_side"}),
            model=model,
            temperature=temperature if self.send_temperature else None,
            seed=0 if self.send_seed else None,
            max_tokens=max_tokens,
            limit_name=self.limit_name,
            cache=cache,
        )

    def key(self) -> str:
        """The API key, as `EndpointConfig.key`."""
        return _key_in(self.api_key_env)
