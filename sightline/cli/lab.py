"""`sightline lab`: draw scenes, train the lab's base VLM, and measure it; the work is in `sightline.lab`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.data.terminal import Screen, say

lab_app = typer.Typer(no_args_is_help=True)

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
]
Config = Annotated[Path | None, typer.Option(help="YAML file of the config.")]


@lab_app.callback()
def _root() -> None:
    """The embedded world: draw scenes, train its base model, measure it."""


@lab_app.command()
def scenes(
    out: Annotated[Path, typer.Option(help="Directory to write: samples.jsonl, images/, manifest.json.")],
    split: Annotated[str, typer.Option(help="Which scenes; splits never share one.")] = "preference",
    count: Annotated[int, typer.Option(min=1, help="How many scenes, one sample each.")] = 1000,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Draw scenes with prompts and (imperfect) reference answers as a samples directory."""
    from sightline.config import load_config
    from sightline.data.terminal import one_bar
    from sightline.lab.samples import ScenesConfig, write_scenes

    with one_bar("scenes") as progress:
        write_scenes(load_config(ScenesConfig, config, overrides or ()), split, count, out, progress)
    say(f"samples: {out} ({count} scenes of split {split})")


@lab_app.command("train-base")
def train_base(
    out: Annotated[Path, typer.Option(help="Directory to write the checkpoint to.")],
    config: Config = None,
    overrides: Overrides = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    device: Annotated[str, typer.Option(help="Where it trains: cpu, cuda, or auto.")] = "cpu",
) -> None:
    """Train the lab's VLM from seed: a tower that sees, a biased language prior, then the two joined."""
    from sightline.config import load_config
    from sightline.lab.recipe.config import RecipeConfig

    settings = load_config(RecipeConfig, config, overrides or ())
    # torch takes seconds to import, which help and mistakes should not
    import torch

    from sightline.lab.recipe import train_base as recipe

    torch.set_num_threads(threads)
    console = Screen(stderr=True, width=120)
    recipe.train_base(settings, out, console, device)
    say(f"model: {out}")


@lab_app.command()
def measure(
    out: Annotated[Path, typer.Option(help="Directory to write: answers, scores, card.json, README.md.")],
    model: Annotated[Path | None, typer.Option(help="Model directory; by default the committed base.")] = None,
    count: Annotated[int, typer.Option(min=10, help="Scenes of each kind.")] = 1000,
) -> None:
    """Measure what the lab promises of its base VLM: seeing, speaking, hallucinating, each with its interval."""
    from sightline.lab import BASE
    from sightline.lab.card import measure_base

    measure_base(model or BASE, out, count)
    say(f"card: {out / 'README.md'}")


@lab_app.command()
def compose(
    out: Annotated[Path, typer.Option(help="Directory to write: models, evaluations, results.json, results.md.")],
    seeds: Annotated[int, typer.Option(min=1, help="How often members are trained anew.")] = 3,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Compose a model that sees with one that hears, against each alone and against training on both."""
    from sightline.config import load_config
    from sightline.data.terminal import one_bar
    from sightline.lab.sound.ear import SoundStudyConfig
    from sightline.lab.sound.study import Study, as_table, run_study

    study = Study(out, load_config(SoundStudyConfig, config, overrides or ()), one_bar)
    results = run_study(study, tuple(range(seeds)))
    say(as_table(results), end="")
    say(f"results: {out / 'results.md'}")


demo_app = typer.Typer()


@demo_app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory of all stages and of the report.")] = Path("runs/aligned"),
    pairs: Annotated[int, typer.Option(min=8, help="Preference scenes.")] = 320,
    scenes: Annotated[int, typer.Option(min=10, help="Test scenes of each kind, natural and counter-prior.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds of pairs and training.")] = 1,
) -> None:
    """Run the whole way on the embedded lab: pictures, pairs, training, measuring, report."""
    from sightline.cli.table import print_results
    from sightline.data.terminal import one_bar
    from sightline.lab.demo import run_demo

    results = run_demo(out, pairs=pairs, scenes=scenes, seeds=tuple(range(seeds)), bar=one_bar)
    print_results(results)
    say(f"report: {out / 'report.html'}")
