"""Where the policy's own answers are sampled: in this process, or on a server that is handed the present adapter.

One protocol, two makers. What is asked and which answers are chosen is the affair of the sources; how a server is
called is `sightline.endpoint`.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from sightline.config import Config
from sightline.endpoint import Ask, Endpoint, EndpointConfig, load_adapter, unload_adapter
from sightline.errors import InputError
from sightline.models.adapters import adapts_vision, save_adapter
from sightline.models.requests import GenerateRequest, Generation, Sampling
from sightline.models.sampler import generate
from sightline.models.vlm import VLM
from sightline.train.processes import Processes, present_processes

FOLDER = "rollouts"
PARTING = 10.0  # seconds that the end of a run waits for a server: nothing depends on its answer


class LocalConfig(Config):
    """Sampling in the training process, `batch_size` rows at a time."""

    name: Literal["local"] = "local"
    batch_size: int = Field(default=16, ge=1)


class ServerConfig(Config):
    """Sampling on a server of the OpenAI kind that takes LoRA adapters while it runs (vLLM).

    It must serve the model that is trained and see the run's directory. `max_side` bounds pictures as everywhere; keep
    it above the model's own size, lest server and trainer see different pictures.
    """

    name: Literal["server"]
    base_url: str
    api_key_env: str | None = None
    timeout: float = Field(default=300, gt=0)
    concurrency: int = Field(default=32, ge=1, le=256)
    max_side: int = Field(default=4096, ge=16)

    def endpoint(self, model: str, sampling: Sampling) -> EndpointConfig:
        """The client's config for one adapter. Nothing is kept on disk: the policy's answers are never the same."""
        return EndpointConfig(
            base_url=self.base_url,
            model=model,
            api_key_env=self.api_key_env,
            temperature=sampling.temperature,
            max_tokens=sampling.max_new_tokens,
            timeout=self.timeout,
            concurrency=self.concurrency,
            max_side=self.max_side,
            cache=False,
        )


EngineConfig = Annotated[LocalConfig | ServerConfig, Field(discriminator="name")]


class RolloutBackend(Protocol):
    """Samples from the policy as it was at the last `refresh`, or, in process, as it is."""

    def refresh(self, step: int) -> None:
        """What is sampled from now on is the policy after `step` steps; called before the first sample, too."""
        ...

    def sample(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> list[Generation | None]:
        """One continuation a request, in order; None where the engine failed. Several answers: several seeds."""
        ...

    def close(self) -> None:
        """Leave nothing behind; `refresh` opens it again."""
        ...


class LocalEngine:
    """`models.sampler.generate` on the policy itself: always the present weights."""

    def __init__(self, vlm: VLM, *, batch_size: int, autocast: bool) -> None:
        self._vlm, self._batch_size, self._autocast = vlm, batch_size, autocast

    def refresh(self, step: int) -> None:
        """Nothing to do."""

    def sample(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> list[Generation | None]:
        return [*generate(self._vlm, requests, sampling, batch_size=self._batch_size, autocast=self._autocast)]

    def close(self) -> None:
        """Nothing to do."""


class ServerEngine:
    """A server that is handed the adapter at each refresh, under a name of its own, and forgets the one before.

    The adapters lie in `directory`, one at a time; of several processes the first one hands them over. Their names
    begin with a hash of the directory, so that runs may share a server. Seeds go along with each call; whether a
    server's sample depends on nothing else is the server's affair.

    Raises:
        InputError: on use: nobody is there, the server loads no adapters, there is no adapter to hand over, or what is
            asked needs the model in process (a prefill, hidden image tokens).
    """

    def __init__(self, vlm: VLM, config: ServerConfig, directory: Path, processes: Processes | None = None) -> None:
        self._vlm, self._config, self._directory = vlm, config, directory
        self._processes = processes or present_processes()
        self._run = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:8]
        self._loaded: str | None = None

    def refresh(self, step: int) -> None:
        if self._vlm.model.active_peft_config.modules_to_save:
            raise InputError("servers take no adapter with a trained projector; set lora.train_projector=false")
        if adapts_vision(self._vlm):
            raise InputError("servers take no adapter of a vision tower; set lora.vision_tower=false")
        name = f"sightline-{self._run}-{step:08d}"
        self._processes.first(lambda: self._hand_over(name))
        self._loaded = name

    def _hand_over(self, name: str) -> None:
        folder = self._directory / name
        shutil.rmtree(folder, ignore_errors=True)
        save_adapter(self._vlm, folder)
        load_adapter(self._settings(), name, folder)
        self._forget(self._settings(), but=name)

    def sample(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> list[Generation | None]:
        if self._loaded is None:
            raise ValueError("refresh the engine before it samples")
        options: list[tuple[str, object]] = [("top_p", sampling.top_p)] if sampling.top_p < 1 else []
        if sampling.stop:  # vLLM's own argument keeps the stop string in the text, as `generate` does
            options += [("stop", list(sampling.stop)), ("extra_body", {"include_stop_str_in_output": True})]
        asks = [_ask(request, tuple(options)) for request in requests]
        replies = Endpoint(self._config.endpoint(self._loaded, sampling)).ask(asks)
        texts = [(reply.begun if reply.text is None else reply.text) for reply in replies]
        return [
            None if text is None else Generation(text, reply.tokens, finished=reply.text is not None)
            for text, reply in zip(texts, replies, strict=True)
        ]

    def close(self) -> None:
        """The server forgets every adapter of this run, one that was killed included; the first process sees to it.

        Raises:
            InputError: the server is gone; the directory is removed all the same.
        """
        self._loaded = None
        if not self._processes.is_first:
            return
        settings = self._settings().model_copy(update={"timeout": min(PARTING, self._config.timeout)})
        try:
            self._forget(settings)
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _forget(self, settings: EndpointConfig, but: str = "") -> None:
        """The directory has what the server was handed, by a run that was killed, too."""
        there = sorted(self._directory.iterdir()) if self._directory.is_dir() else []
        for folder in there:
            if folder.name != but:
                unload_adapter(settings, folder.name)
                shutil.rmtree(folder)

    def _settings(self) -> EndpointConfig:
        return self._config.endpoint("adapter", Sampling(max_new_tokens=1))


def make_engine(
    config: LocalConfig | ServerConfig, vlm: VLM, run: Path, *, autocast: bool, processes: Processes | None = None
) -> RolloutBackend:
    """The engine that a config names, for the run in the directory `run`."""
    if isinstance(config, ServerConfig):
        return ServerEngine(vlm, config, run / FOLDER, processes)
    return LocalEngine(vlm, batch_size=config.batch_size, autocast=autocast)


def _ask(request: GenerateRequest, options: tuple[tuple[str, object], ...]) -> Ask:
    if request.prefill or request.hidden:
        raise InputError("a server neither hides image tokens nor goes on with a text; set source.engine.name=local")
    prefix = request.prefix
    return Ask(prefix.prompt, prefix.images, request.seed, prefix.history, options, aloud=True)
