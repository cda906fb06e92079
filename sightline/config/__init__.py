"""What every config shares: frozen, closed, small; each stage owns its own class in its own room.

Nothing here knows a stage, opens data or imports torch. Reading one from YAML and the command line is `loading`.
"""

from typing import Annotated, Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import CoreSchema

from sightline.config.loading import load_config
from sightline.config.strictness import without_conversion

__all__ = ["MAX_SEED", "Config", "Seed", "SparseConfig", "load_config"]

#: The largest seed that NumPy, torch and Transformers all take.
MAX_SEED = 2**32 - 1
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Config(BaseModel):
    """A frozen section that rejects unknown keys, numbers that are not finite and values of another type.

    Use tuples for lists. A number that decides the science has no default, so that whoever runs it has to say it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return without_conversion(handler(source))


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
