"""Backends that sample the policy's own answers: in this process, or on a server that loads the present adapter.

The sources decide on prompts and choose among the answers; `sightline.endpoint` is the client of servers.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from sightline.config import Config
from sightline.endpoint import EndpointConfig, GenerationServerConfig, load_adapter, unload_adapter
from sightline.errors import InputError
from sightline.generators.server import ServerGenerator
from sightline.models.adapters import adapts_vision, save_adapter
from sightline.models.generator import Generator, ModelGenerator
from sightline.models.processes import Processes, current_processes
from sightline.models.requests import FailedGeneration, GenerateRequest, Generation, Sampling
from sightline.models.vlm import VLM

FOLDER = "rollouts"
CLOSE_TIMEOUT = 10.0  # seconds to wait for a server at the end of a run; nothing depends on its answer


class LocalConfig(Config):
    """Sampling in the training process."""

    name: Literal["local"] = Field(default="local", description="selects this engine")
    batch_size: int = Field(default=16, ge=1, description="answers generated together; fewer need less memory")


class ServerConfig(Config):
    """Sampling on an OpenAI-compatible server that loads LoRA adapters while it runs (vLLM).

    The server must serve the trained model and have access to the run's directory.
    """

    name: Literal["server"] = Field(description="selects this engine")
    base_url: str = Field(description="address of the server, such as http://127.0.0.1:8000/v1")
    api_key_env: str | None = Field(
        default=None, description="environment variable that holds the key, never the key; null: none"
    )
    timeout: float = Field(default=300, gt=0, description="seconds for one call")
    concurrency: int = Field(default=32, ge=1, le=256, description="concurrent calls")
    max_side: int = Field(
        default=4096,
        ge=16,
        description="larger images are scaled down to this many pixels; below the model's own size, server and trainer "
        "see different images",
    )

    def server(self) -> GenerationServerConfig:
        """The server as a generator."""
        return GenerationServerConfig(**self.model_dump(exclude={"name"}))


BackendConfig = Annotated[LocalConfig | ServerConfig, Field(discriminator="name")]


class RolloutBackend(Generator, Protocol):
    """Samples from the policy as of the last `refresh` or, in process, from its present weights."""

    def refresh(self, step: int) -> None:
        """Sample from the policy after `step` steps from now on; also called before the first sample."""
        ...

    def close(self) -> None:
        """Release everything; `refresh` opens the backend again."""
        ...


class LocalBackend(ModelGenerator):
    """The policy itself."""

    def refresh(self, step: int) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class ServerBackend:
    """A server that loads the adapter at each refresh, under a new name, and unloads the previous one.

    The adapters are in `directory`, one at a time; of several processes the first one uploads them. Their names begin
    with a hash of the directory, so that runs may share a server. Each call carries its seed; whether a server's sample
    depends on anything else is up to the server.

    Raises:
        InputError: on use: no server answers, it loads no adapters, there is no adapter, or a request needs the model
            in process (a prefill, hidden image tokens).
    """

    def __init__(self, vlm: VLM, config: ServerConfig, directory: Path, processes: Processes | None = None) -> None:
        self._vlm, self._config, self._directory = vlm, config, directory
        self._processes = processes or current_processes()
        self._run = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:8]
        self._generator: ServerGenerator | None = None

    def refresh(self, step: int) -> None:
        if self._vlm.model.active_peft_config.modules_to_save:
            raise InputError("servers cannot load an adapter with a trained projector; set lora.train_projector=false")
        if adapts_vision(self._vlm):
            raise InputError("servers cannot load an adapter of a vision tower; set lora.vision_tower=false")
        name = f"sightline-{self._run}-{step:08d}"
        self._processes.on_first(lambda: self._hand_over(name))
        # Nothing is kept on disk: the policy's answers always differ.
        self._generator = ServerGenerator(self._config.server(), name)

    def _hand_over(self, name: str) -> None:
        folder = self._directory / name
        shutil.rmtree(folder, ignore_errors=True)
        save_adapter(self._vlm, folder)
        load_adapter(self._settings(), name, folder)
        self._forget(self._settings(), but=name)

    def sample(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> list[Generation | FailedGeneration]:
        """One continuation per request, in order."""
        if self._generator is None:
            raise ValueError("refresh the backend before sampling")
        return self._generator.sample(requests, sampling)

    def close(self) -> None:
        """Unload every adapter of this run, including those of a killed one; the first process does it.

        Raises:
            InputError: the server is gone; the directory is removed nevertheless.
        """
        self._generator = None
        if not self._processes.is_first:
            return
        settings = self._settings().model_copy(update={"timeout": min(CLOSE_TIMEOUT, self._config.timeout)})
        try:
            self._forget(settings)
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _forget(self, settings: EndpointConfig, but: str = "") -> None:
        """Unload the adapters in the directory, which also holds those of a killed run."""
        there = sorted(self._directory.iterdir()) if self._directory.is_dir() else []
        for folder in there:
            if folder.name != but:
                unload_adapter(settings, folder.name)
                shutil.rmtree(folder)

    def _settings(self) -> EndpointConfig:
        return self._config.server().client("adapter", temperature=0.0, max_tokens=1, cache=False)


def make_backend(
    config: LocalConfig | ServerConfig, vlm: VLM, run: Path, *, autocast: bool, processes: Processes | None = None
) -> RolloutBackend:
    """The backend that a config names, for the run in the directory `run`."""
    if isinstance(config, ServerConfig):
        return ServerBackend(vlm, config, run / FOLDER, processes)
    return LocalBackend(vlm, batch_size=config.batch_size, autocast=autocast)
