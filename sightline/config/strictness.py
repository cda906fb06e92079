"""No value of a config is converted without a word: `true` is not 1, "1" is not 1, and 1 is not `true`.

Pydantic's strict mode refuses lists for tuples and texts for paths too, which YAML cannot write otherwise; here only
booleans and numbers are strict. A whole number may be written as a float (`1e3`).
"""

from typing import Any

from pydantic_core import CoreSchema, core_schema

_STRICT = ("int", "float", "bool")


def without_conversion(schema: CoreSchema) -> CoreSchema:
    """The schema with every boolean and number in it strict."""
    strict: CoreSchema = _walk(schema)
    return strict


def _walk(part: Any) -> Any:
    if isinstance(part, (list, tuple)):
        return type(part)(map(_walk, part))
    if not isinstance(part, dict):
        return part
    if part.get("type") in _STRICT:
        strict = {**part, "strict": True}
        return strict if part["type"] != "int" else core_schema.no_info_before_validator_function(_whole, strict)
    if part.get("type") == "function-before" and part.get("function", {}).get("function") is _whole:
        return part
    # Defaults are values and `metadata` is the JSON schema's: neither is a schema
    return {key: value if key in ("default", "metadata") else _walk(value) for key, value in part.items()}


def _whole(value: object) -> object:
    """A float that is a whole number, as that number."""
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    return int(value) if is_whole else value  # type: ignore[call-overload]
