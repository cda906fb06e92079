"""Early checks that need no torch, so that a misspelled key or path fails at once.

The config classes of these commands live beside code that needs torch; outlines of their keys are in `outlines.json`. A
test compares them with the configs; after a change of a config, run `python -m sightline.cli.early`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel

from sightline.cli.model_options import ELSEWHERE
from sightline.config import load_config
from sightline.config.loading import check_keys
from sightline.config.problems import Outline, build_outline, unknown_key
from sightline.data.terminal import say
from sightline.endpoint import GenerationServerConfig
from sightline.errors import InputError

if TYPE_CHECKING:
    from sightline.study.plan import Job

OUTLINES = Path(__file__).with_name("outlines.json")


def check_early(command: str, config: Path | None, overrides: Sequence[str] | None, **places: Path | None) -> None:
    """Reject unknown keys of a command's config, and input paths (by option) that do not exist.

    The config's section `model` is checked by `cli.model_options`.

    Raises:
        InputError: a key is unknown or a path does not exist.
    """
    found = json.loads(OUTLINES.read_text(encoding="utf-8")).get(command)
    if found is not None:  # a plugin's config is checked by its class alone
        check_keys(
            Outline(tuple(found["known"]), frozenset(found["opaque"])), config, overrides or (), elsewhere=ELSEWHERE
        )
    check_places(**places)


def check_jobs(jobs: "Iterable[Job]") -> None:
    """Reject unknown keys in the settings of a study's jobs, before any of them runs.

    Raises:
        InputError: a job has a key that its command's config does not know.
    """
    outlines_by_command = json.loads(OUTLINES.read_text(encoding="utf-8"))
    for job in jobs:
        command = f"pairs {job.settings['builder']}" if "builder" in job.settings else job.kind
        keys, found = job.settings.get("config"), outlines_by_command.get(command)
        if found is None or not isinstance(keys, Mapping):
            continue
        outline = Outline(tuple(found["known"]), frozenset(found["opaque"]))
        for place in outline.unknown(keys):
            raise InputError(f"study: {job.kind} {job.label}: {unknown_key(place, outline.known)}")


def check_places(**places: Path | None) -> None:
    """Reject input paths, by option, that do not exist.

    Raises:
        InputError: a path does not exist.
    """
    for option, path in places.items():
        if path is not None and not path.exists():
            raise InputError(f"{option} {path} does not exist; check the path, or run the command that creates it")


def outlines() -> dict[str, dict[str, list[str]]]:
    """The outlines of all configs that need torch, by command, as `outlines.json` stores them."""
    from sightline.builders.registry import BUILDERS, get_builder
    from sightline.recipes.curation.config import CurateConfig
    from sightline.train.config import TrainConfig

    builders = {f"pairs {name}": get_builder(name).config for name in BUILDERS}
    configs: dict[str, type[BaseModel]] = {"train": TrainConfig, "curate": CurateConfig, **builders}
    by_command = {name: build_outline(model) for name, model in configs.items()}
    return {name: {"known": list(each.known), "opaque": sorted(each.opaque)} for name, each in by_command.items()}


if __name__ == "__main__":
    OUTLINES.write_text(json.dumps(outlines(), indent=1) + "\n", encoding="utf-8")
    say(f"outlines: {OUTLINES}")


#: Options of the commands that a server may answer in the model's place.
EndpointURL = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="URL", help="Server that answers, such as http://127.0.0.1:8000/v1."),
]
EndpointModel = Annotated[
    str | None, typer.Option("--endpoint-model", metavar="NAME", help="Its model (default: the only one it lists).")
]
KeyVariable = Annotated[
    str | None, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that holds its key.")
]
Concurrency = Annotated[int | None, typer.Option(min=1, max=256, help="Concurrent calls to it (default: 32).")]
EndpointSets = Annotated[
    list[str] | None,
    typer.Option("--endpoint-set", metavar="KEY=VALUE", help="Another key of the server; may be repeated."),
]


def endpoint_config(
    url: str | None,
    model: str | None,
    key_variable: str | None,
    concurrency: int | None,
    sets: Sequence[str] | None,
) -> GenerationServerConfig | None:
    """The server of the options; None if none is given.

    Raises:
        InputError: a key is unknown or has a wrong value, or there is a key and no address.
    """
    named = {"base_url": url, "model": model, "api_key_env": key_variable, "concurrency": concurrency}
    given = [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None] + [*(sets or ())]
    if url is None and given:
        raise InputError("the options of a server are given without its address; name it with --endpoint")
    return load_config(GenerationServerConfig, None, given) if given else None


Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
]
