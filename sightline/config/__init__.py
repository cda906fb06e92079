"""What every config shares: frozen, closed, small; each stage owns its own class in its own room.

Nothing here knows a stage, opens data or imports torch. Reading one from YAML and the command line is `loading`.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from sightline.config.loading import load_config

__all__ = ["Config", "SparseConfig", "load_config"]


class Config(BaseModel):
    """A frozen section that rejects unknown keys and numbers that are not finite. Use tuples for lists.

    A number that decides the science has no default, so that whoever runs it has to say it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class SparseConfig(Config):
    """A config that leaves out the keys in `SPARSE` where they have their defaults.

    A key that a later version adds goes there, so that directories of earlier versions keep their hashes.
    """

    SPARSE: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {k: v for k, v in plain.items() if k not in self.SPARSE or v != fields[k].default}
