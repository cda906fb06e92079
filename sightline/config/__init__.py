"""What every config shares: frozen, closed, small; each stage owns its own class in its own room.

Nothing here knows a stage, opens data or imports torch. Reading one from YAML and the command line is `loading`.
"""

from pydantic import BaseModel, ConfigDict

from sightline.config.loading import load_config

__all__ = ["Config", "load_config"]


class Config(BaseModel):
    """A frozen section that rejects unknown keys and numbers that are not finite. Use tuples for lists.

    A number that decides the science has no default, so that whoever runs it has to say it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)
