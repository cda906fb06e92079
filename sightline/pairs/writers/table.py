"""Every writer's config, told apart by `name`: what a builder with a writer takes."""

from typing import Annotated

from pydantic import Field

from sightline.pairs.writers.endpoint import EndpointWriterConfig
from sightline.pairs.writers.oracle import OracleWriterConfig
from sightline.pairs.writers.policy import PolicyWriterConfig

WriterConfig = Annotated[OracleWriterConfig | EndpointWriterConfig | PolicyWriterConfig, Field(discriminator="name")]
