"""The options of every command that opens a model, and the `model:` section of its config file.

A command is written with one parameter `model: ModelSpec` (or `ModelSpec | None`); the decorator replaces it by
`--model` and the options of `ModelSpec`. An option on the command line wins over the same key of the file.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from sightline.config.loading import parse_override, read_yaml
from sightline.config.problems import describe, shorten
from sightline.errors import InputError
from sightline.models.spec import ModelOptions, ModelSpec

#: The section of a config file that this module reads; `load_config(..., elsewhere=ELSEWHERE)` skips it.
ELSEWHERE = ("model",)
_PANEL = "How the model is opened"
_NAME = "Model: a directory, a GGUF file, a hub id such as owner/name, or lab."


def opens_model(
    *, required: bool = True, argument: bool = False, adapter: bool = True, help: str = _NAME
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of a model; it receives a checked `ModelSpec`, or None where none is `required`.

    With `argument` the name is a positional argument. Without `adapter` the command takes no adapter.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(command).parameters.values())
        options = [name for name in ModelOptions.model_fields if adapter or name != "adapter"]
        named = (
            typer.Argument(help=help, show_default=False) if argument else typer.Option(help=help, show_default=False)
        )
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        model = inspect.Parameter("model", kind, default=None, annotation=Annotated[str | None, named])
        first = [model if one.name == "model" else one for one in own]
        first.sort(key=lambda one: one.default is not inspect.Parameter.empty)

        @functools.wraps(command)
        def run(**values: Any) -> None:
            given = {name: values.pop(name) for name in options}
            name, rest = values.pop("model"), values.get("overrides")
            section, others = _read_section(values.get("config"), rest or ())
            if "overrides" in values:
                values["overrides"] = others
            keys = section | {key: value for key, value in given.items() if value is not None and value is not False}
            command(**values, model=_to_spec(keys | ({"name": name} if name is not None else {}), required, argument))

        run.__signature__ = inspect.Signature([*first, *map(_option, options)])  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in [*first, *map(_option, options)]}
        return run

    return decorate


def _option(name: str) -> inspect.Parameter:
    """A command-line option for a key of `ModelOptions`; without it the key keeps the value of the file."""
    field = ModelOptions.model_fields[name]
    words = f"{field.description or ''}".strip()
    is_flag = field.annotation is bool
    text = typer.Option(
        f"--{name.replace('_', '-')}",
        help=f"{words[:1].upper()}{words[1:]}.",
        show_default=False,
        rich_help_panel=_PANEL,
    )
    kind: Any = field.annotation
    if not is_flag and not _takes_none(kind):
        kind = kind | None
    default = False if is_flag else None
    annotation = Annotated[kind, text]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _takes_none(annotation: Any) -> bool:
    return type(None) in getattr(annotation, "__args__", ())


def _read_section(config: Path | None, overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The keys of the `model:` section in the file and in `--set model.KEY=VALUE`, and the other overrides."""
    section = _as_mapping({} if config is None else read_yaml(config).get("model") or {}, str(config))
    others = []
    for override in overrides:
        keys, value = parse_override(override)
        if keys[0] != "model":
            others.append(override)
        elif len(keys) > 2:
            raise InputError(
                f"override '{override}': keys of the section model have no sections; write model.KEY=VALUE"
            )
        else:
            section |= _as_mapping(value, override) if len(keys) == 1 else {keys[1]: value}
    return section, others


def _as_mapping(value: Any, origin: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict):
        raise InputError(f"{origin}: model = {shorten(value)} is neither a name nor keys and values")
    return dict(value)


def _to_spec(keys: dict[str, Any], required: bool, argument: bool) -> ModelSpec | None:
    """The checked record; None without a name."""
    if "name" not in keys:
        if required:
            where = "as the first argument" if argument else "with --model"
            raise InputError(f"no model is given; name one {where}, or as model.name in the config file")
        if keys:
            raise InputError(f"{next(iter(keys))} is given and no model; name one with --model, or leave it out")
        return None
    try:
        spec = ModelSpec.model_validate(keys)
    except ValidationError as error:
        raise InputError(f"model: {describe(error, ModelSpec, keys)}") from error
    spec.check_name()
    return spec
