"""Client for OpenAI-compatible servers, shared by the endpoint judge and writer.

A problem with a single call makes that call fail; a problem with the server (unreachable, wrong key, unknown model)
stops the run, since every later call would fail too. Answers are cached on disk and never requested again.
"""

from sightline.endpoint.client import Endpoint
from sightline.endpoint.config import EndpointConfig, GenerationServerConfig
from sightline.endpoint.request import Ask, Reply, load_adapter, unload_adapter
from sightline.endpoint.served import ServedModel, find_served_model

__all__ = [
    "Ask",
    "Endpoint",
    "EndpointConfig",
    "GenerationServerConfig",
    "Reply",
    "ServedModel",
    "find_served_model",
    "load_adapter",
    "unload_adapter",
]
