"""Asking a language model on a server of the OpenAI kind: the one client of the endpoint's judge and writer.

What concerns a single call makes that call fail; what concerns the server (nobody there, a wrong key, an unknown model)
stops the run, since all that came after would be lost. What was answered is kept on disk and never asked again.
"""

from sightline.endpoint.client import Endpoint
from sightline.endpoint.config import EndpointConfig
from sightline.endpoint.request import Ask, Reply, load_adapter, unload_adapter

__all__ = ["Ask", "Endpoint", "EndpointConfig", "Reply", "load_adapter", "unload_adapter"]
