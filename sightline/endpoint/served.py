"""Which model a server serves, by its own list (`GET /v1/models`): a part of the identity of all that it writes."""

from typing import Any

from pydantic import Field

from sightline.config import Config
from sightline.config.problems import shorten
from sightline.endpoint.config import GenerationServerConfig
from sightline.errors import InputError

_SHOWN = 5  # names of models in an error


class ServedModel(Config):
    """The model of a server, with the settings that decide its answers; the server's address does not."""

    requested: str | None = Field(description="the name that was asked for; null: the only model that is listed")
    served: str | None = Field(description="its name in the server's list; null: it is not there")
    root: str | None = Field(default=None, description="where its weights are, as the server reports")
    max_side: int = Field(default=4096, description="larger pictures are scaled down to this many pixels")
    temperature: bool = Field(default=True, description="whether a temperature is sent")
    seed: bool = Field(default=True, description="whether seeds are sent")

    @property
    def name(self) -> str:
        """The name in requests."""
        return self.requested or self.served or ""


def find_served_model(config: GenerationServerConfig) -> ServedModel:
    """Ask a server for its models, and choose the one of the config, or the only one.

    Servers may know models that they do not list, so a requested name need not be in the list.

    Raises:
        InputError: no server answers, it rejects the key, or no name is given and it lists none or several.
    """
    listed = _listed_models(config)
    decided: dict[str, Any] = {
        "requested": config.model,
        "max_side": config.max_side,
        "temperature": config.send_temperature,
        "seed": config.send_seed,
    }
    if config.model is not None:
        found = next((each for each in listed if each["id"] == config.model), {})
        return ServedModel(**decided, served=found.get("id"), root=found.get("root"))
    own = [each for each in listed if not each.get("parent")]  # vLLM names the base model of each adapter
    if len(own) != 1:
        names = ", ".join(shorten(each["id"]) for each in own[:_SHOWN]) + (", ..." if len(own) > _SHOWN else "")
        problem = f"serves {len(own)} models ({names})" if own else "does not list its models"
        raise InputError(f"the server at {config.base_url} {problem}; name one with --endpoint-model")
    return ServedModel(**decided, served=own[0]["id"], root=own[0].get("root"))


def _listed_models(config: GenerationServerConfig) -> list[dict[str, Any]]:
    """The models in the server's list, each with its `id`; empty if it has no such list."""
    try:
        import openai
    except ImportError as error:
        raise InputError("an endpoint needs the openai package: pip install 'sightline[judge]'") from error
    with openai.OpenAI(base_url=config.base_url, api_key=config.key(), timeout=config.timeout, max_retries=2) as client:
        try:
            found: object = client.get("/models", cast_to=object)
        except openai.AuthenticationError as error:
            variable = config.api_key_env or "a variable that api_key_env names"
            raise InputError(
                f"the server at {config.base_url} rejects the API key; set a valid one in {variable}"
            ) from error
        except openai.APIStatusError:
            return []
        except openai.APIConnectionError as error:
            raise InputError(
                f"no server answers at {config.base_url} ({error.__cause__ or error}); start it, or correct the address"
            ) from error
    rows = found.get("data") if isinstance(found, dict) else None
    texts = ("id", "root", "parent")
    return [
        {key: row[key] for key in texts if isinstance(row.get(key), str)}
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, dict) and isinstance(row.get("id"), str)
    ]
