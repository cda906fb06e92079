"""`sightline pairs`: preference pairs from samples, one command a builder; the stages are in `sightline.builders`.

The commands are made from the registry of builders, so that a new builder needs no line here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from sightline.builders.registry import BUILDERS, check_server
from sightline.cli.early import (
    Concurrency,
    EndpointModel,
    EndpointSets,
    EndpointURL,
    KeyVariable,
    check_early,
    check_places,
    endpoint_config,
)
from sightline.cli.model_options import ELSEWHERE, opens_model
from sightline.config import MAX_SEED
from sightline.data.terminal import say
from sightline.models.spec import ModelSpec

app = typer.Typer(no_args_is_help=True)

Samples = Annotated[Path, typer.Option(help="Samples directory or JSONL file, or a directory of pairs.")]
Out = Annotated[Path, typer.Option(help="Directory to write: a dataset that `datasets` and TRL open.")]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML file of the builder's config.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of everything that is drawn.")]
ShardText = Annotated[str, typer.Option("--shard", help="INDEX/COUNT: this process's part of the samples.")]


@app.callback()
def _root() -> None:
    """Build preference pairs from samples."""


@app.command()
def merge(
    parts: Annotated[list[Path], typer.Argument(help="Directories of pairs; their ids must differ.")],
    out: Out,
) -> None:
    """Bring directories of pairs together, such as the shards of one builder."""
    from sightline.builders.dataset_ops import merge_datasets

    manifest = merge_datasets(parts, out)
    say(f"pairs: {out} ({manifest.counts['pairs']} of {len(parts)} directories)")


@app.command()
def average(
    first: Annotated[Path, typer.Argument(help="Directory of pairs.")],
    second: Annotated[Path, typer.Argument(help="Directory of pairs on the same prompts and chosen answers.")],
    out: Out,
) -> None:
    """Give each pair a second rejected answer, for averaged DPO (arXiv 2407.02477, eq. 5)."""
    from sightline.builders.dataset_ops import average_datasets

    manifest = average_datasets(first, second, out)
    say(f"pairs: {out} ({manifest.counts['pairs']} kept, dropped {manifest.dropped or 'none'})")


@app.command()
def take(
    source: Annotated[Path, typer.Argument(help="Directory of pairs, or of samples.")],
    count: Annotated[int, typer.Option(min=1, help="How many rows.")],
    out: Out,
    random_seed: Annotated[
        int | None, typer.Option(min=0, max=MAX_SEED, help="Draw them; by default it is the first ones.")
    ] = None,
) -> None:
    """Take some rows of a directory, so that several have equally many."""
    from sightline.builders.dataset_ops import TakeConfig, take_rows

    manifest = take_rows(source, TakeConfig(count=count, random_seed=random_seed), out)
    say(f"{manifest.stage.split()[0]}: {out} ({count} of {source})")


@app.command("from-feedback")
def from_feedback(
    logs: Annotated[list[Path], typer.Argument(help="Logs of a served model, with what people thought beside them.")],
    out: Out,
) -> None:
    """Turn thumbs and corrections on a served model's answers into pairs; the log must hold texts and pictures."""
    for log in logs:
        check_places(log=log)
    from sightline.builders.feedback import pairs_from_feedback

    manifest = pairs_from_feedback(logs, out)
    say(f"pairs: {out} ({manifest.counts['pairs']} kept, dropped {manifest.dropped or 'none'})")


@app.command("from-labels")
def from_labels(
    labels: Annotated[Path, typer.Argument(help="Directory of labels, of `sightline label` or `sightline chat`.")],
    out: Out,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Make pairs of what people chose, and of answers that they put right (RLHF-V, arXiv 2312.00849)."""
    from sightline.builders.from_labels import FromLabelsConfig, pairs_from_labels
    from sightline.config import load_config

    manifest = pairs_from_labels(labels, out, load_config(FromLabelsConfig, config, overrides or ()))
    say(f"pairs: {out} ({manifest.counts['pairs']} kept, dropped {manifest.dropped or 'none'})")


def _command(name: str) -> Callable[..., None]:
    @opens_model(required=False, help="The model that is to be aligned: a directory, a hub id, or lab.")
    def run(  # noqa: PLR0913 - one parameter an option
        samples: Samples,
        out: Out,
        model: ModelSpec | None = None,
        config: ConfigFile = None,
        overrides: Overrides = None,
        seed: Seed = 0,
        shard: ShardText = "0/1",
        endpoint: EndpointURL = None,
        endpoint_model: EndpointModel = None,
        api_key_env: KeyVariable = None,
        concurrency: Concurrency = None,
        endpoint_sets: EndpointSets = None,
    ) -> None:
        check_early(f"pairs {name}", config, overrides, samples=samples)
        server = endpoint_config(endpoint, endpoint_model, api_key_env, concurrency, endpoint_sets)
        if server is not None:
            check_server(name)
        from sightline.builders.build import BuildPlan, build_dataset
        from sightline.builders.registry import get_builder
        from sightline.config import load_config
        from sightline.data.samples import Shard
        from sightline.data.terminal import one_bar
        from sightline.models.processes import is_first_launched

        builder = get_builder(name)
        settings = load_config(builder.config, config, overrides or (), elsewhere=ELSEWHERE)
        plan = BuildPlan(builder, settings, seed, Shard.parse(shard), server)
        with one_bar("pairs", shown=is_first_launched()) as progress:
            manifest = build_dataset(plan, model, samples, out, progress)
        if is_first_launched():
            say(f"pairs: {out} ({manifest.counts['pairs']} kept, dropped {manifest.dropped or 'none'})")

    run.__doc__ = BUILDERS[name].help
    return run


for _name in BUILDERS:
    app.command(_name)(_command(_name))
