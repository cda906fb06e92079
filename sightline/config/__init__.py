"""Base classes of all configs: frozen, closed to unknown keys, strict about booleans and numbers.

Each stage defines its config class in its own package. Nothing here opens data or imports torch. `loading` reads
configs from YAML and the command line.
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
from pydantic_core import CoreSchema, core_schema

from sightline.config.loading import load_config

__all__ = ["MAX_SEED", "Config", "Seed", "SparseConfig", "load_config"]

#: The largest seed that NumPy, torch and Transformers all take.
MAX_SEED = 2**32 - 1
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


def _strict(part: Any) -> Any:
    """The schema with every boolean and number in it strict."""
    if isinstance(part, (list, tuple)):
        return type(part)(map(_strict, part))
    if not isinstance(part, dict):
        return part
    if part.get("type") in ("int", "float", "bool"):
        strict = {**part, "strict": True}
        return strict if part["type"] != "int" else core_schema.no_info_before_validator_function(_whole, strict)
    if part.get("type") == "function-before" and part.get("function", {}).get("function") is _whole:
        return part
    # Defaults are values and `metadata` is the JSON schema's: neither is a schema.
    return {key: value if key in ("default", "metadata") else _strict(value) for key, value in part.items()}


def _whole(value: object) -> object:
    """A float that is a whole number as an int; any other value unchanged."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    return int(value) if is_whole else value  # type: ignore[call-overload]


class Config(BaseModel):
    """A frozen section that rejects unknown keys, numbers that are not finite and values of the wrong type.

    No boolean or number is converted: `true` is not 1, "1" is not 1, and 1 is not `true`; a whole number may be written
    as a float (`1e3`). Pydantic's own strict mode would also refuse lists for tuples and strings for paths, which YAML
    cannot write otherwise. Use tuples for lists. A number that decides the science has no default: the user must set
    it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        strict: CoreSchema = _strict(handler(source))
        return strict


class SparseConfig(Config):
    """A config that omits keys listed in `SPARSE` when they have their defaults.

    List a key that a later version adds, so that directories of earlier versions keep their hashes.
    """

    SPARSE: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        plain: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {k: v for k, v in plain.items() if k not in self.SPARSE or v != fields[k].default}
