"""What is looked at before torch is imported, so that a misspelled key or path is answered at once.

The configs of these commands stand beside code that needs torch; the outlines of their keys are in `outlines.json`. A
test compares them with the configs; `python -m sightline.cli.early` writes them again where a config has changed.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from sightline.config.loading import check_keys
from sightline.config.problems import Outline, build_outline
from sightline.data.terminal import say
from sightline.errors import InputError

OUTLINES = Path(__file__).with_name("outlines.json")


def check_early(command: str, config: Path | None, overrides: Sequence[str] | None, **places: Path | None) -> None:
    """Refuse unknown keys of a command's config, and paths to be read (by option) that do not exist.

    Raises:
        InputError: there is one.
    """
    found = json.loads(OUTLINES.read_text(encoding="utf-8")).get(command)
    if found is not None:  # a plugin's config is checked by its class alone
        check_keys(Outline(tuple(found["known"]), frozenset(found["opaque"])), config, overrides or ())
    check_places(**places)


def check_places(**places: Path | None) -> None:
    """Refuse paths to be read, by option, that do not exist.

    Raises:
        InputError: there is one.
    """
    for option, path in places.items():
        if path is not None and not path.exists():
            raise InputError(f"{option} {path} does not exist; check the path, or run the command that makes it")


def outlines() -> dict[str, dict[str, list[str]]]:
    """The outline of every config that needs torch, by command, as they belong into the file."""
    from sightline.builders.registry import BUILDERS, get_builder
    from sightline.recipes.curation.config import CurateConfig
    from sightline.train.config import TrainConfig

    builders = {f"pairs {name}": get_builder(name).config for name in BUILDERS}
    configs: dict[str, type[BaseModel]] = {"train": TrainConfig, "curate": CurateConfig, **builders}
    made = {name: build_outline(model) for name, model in configs.items()}
    return {name: {"known": list(each.known), "opaque": sorted(each.opaque)} for name, each in made.items()}


if __name__ == "__main__":
    OUTLINES.write_text(json.dumps(outlines(), indent=1) + "\n", encoding="utf-8")
    say(f"outlines: {OUTLINES}")
