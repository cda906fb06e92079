"""Handing a LoRA adapter to a server while it runs, by the two routes that vLLM has for it.

The server must be started for it (`VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora`) and must see
the adapter's directory. Asked by its name as the model, it then answers as base model and adapter together.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from sightline.endpoint.config import EndpointConfig
from sightline.errors import InputError

if TYPE_CHECKING:
    import openai

_REMEDY = (
    "start it with adapters that can be changed (vLLM: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora, "
    "--max-lora-rank of at least lora.rank)"
)


def load_adapter(config: EndpointConfig, name: str, directory: Path) -> None:
    """Have the server load the adapter (PEFT) in `directory` under `name`; one that has this name already is replaced.

    Raises:
        InputError: nobody is there, or the server refuses.
    """
    unload_adapter(config, name)  # a run that goes on after a kill finds its own, perhaps of another directory
    fault = _post(config, "load_lora_adapter", {"lora_name": name, "lora_path": str(directory.absolute())})
    if fault is not None:
        raise InputError(f"the server at {config.base_url} loads no adapter ({fault}); {_REMEDY}")


def unload_adapter(config: EndpointConfig, name: str) -> None:
    """Have the server forget the adapter, if it has it.

    Raises:
        InputError: nobody is there.
    """
    _post(config, "unload_lora_adapter", {"lora_name": name})  # refused: there is none, or none can be loaded either


def _post(config: EndpointConfig, route: str, body: dict[str, str]) -> str | None:
    """None where it went well, else what the server said against it."""
    import openai

    with openai.OpenAI(base_url=config.base_url, api_key=config.key(), timeout=config.timeout, max_retries=2) as client:
        try:
            client.post(f"/{route}", body=body, cast_to=str)
        except openai.APIStatusError as error:
            return f"status {error.status_code}: {_said(error)}"
        except openai.APIConnectionError as error:
            raise InputError(
                f"no server answers at {config.base_url} ({error.__cause__ or error}); start it, or correct base_url"
            ) from error
    return None


def _said(error: "openai.APIStatusError") -> str:
    said = error.body.get("message") if isinstance(error.body, dict) else None
    return " ".join(str(said or error.response.text).split())[:200]
