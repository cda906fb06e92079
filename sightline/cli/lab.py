"""`sightline lab` and `sightline demo`: the embedded world and its base VLM; `sightline.lab` does the work."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.early import Overrides
from sightline.data.terminal import Screen, say

lab_app = typer.Typer(no_args_is_help=True)

Config = Annotated[Path | None, typer.Option(help="YAML file of the config.")]


@lab_app.callback()
def _root() -> None:
    """The embedded lab: draw scenes, train and measure its base model."""


@lab_app.command()
def scenes(
    out: Annotated[Path, typer.Option(help="Directory to write: samples.jsonl, images/, manifest.json.")],
    split: Annotated[str, typer.Option(help="Split of the scenes; splits share no scene.")] = "preference",
    count: Annotated[int, typer.Option(min=1, help="Number of scenes, one sample each.")] = 1000,
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
    device: Annotated[str, typer.Option(help="Training device: cpu, cuda, or auto.")] = "cpu",
) -> None:
    """Train the lab's VLM from a seed: vision tower, biased language prior, then both jointly."""
    from sightline.config import load_config
    from sightline.lab.recipe.config import RecipeConfig

    settings = load_config(RecipeConfig, config, overrides or ())
    # torch takes seconds to import
    import torch

    from sightline.lab.recipe import train_base as recipe

    torch.set_num_threads(threads)
    console = Screen(stderr=True, width=120)
    recipe.train_base(settings, out, console, device)
    say(f"model: {out}")


@lab_app.command()
def measure(
    out: Annotated[Path, typer.Option(help="Directory to write: answers, scores, card.json, README.md.")],
    model: Annotated[Path | None, typer.Option(help="Model directory (default: the committed base).")] = None,
    count: Annotated[int, typer.Option(min=10, help="Number of scenes of each kind.")] = 1000,
) -> None:
    """Measure the lab's base VLM: perception, fluency and hallucination, each with its interval."""
    from sightline.lab import BASE
    from sightline.lab.card import measure_base

    measure_base(model or BASE, out, count)
    say(f"card: {out / 'README.md'}")


@lab_app.command()
def compose(
    out: Annotated[Path, typer.Option(help="Directory to write: models, evaluations, results.json, results.md.")],
    seeds: Annotated[int, typer.Option(min=1, help="Number of training seeds.")] = 3,
    config: Config = None,
    overrides: Overrides = None,
) -> None:
    """Compose a picture model with a sound model; compare with each alone and with joint training."""
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
    out: Annotated[Path, typer.Option(help="Directory of all stages and the report.")] = Path("runs/aligned"),
    pairs: Annotated[int, typer.Option(min=8, help="Number of preference scenes.")] = 320,
    scenes: Annotated[
        int, typer.Option(min=10, help="Number of test scenes of each kind, natural and counter-prior.")
    ] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds of pairs and training.")] = 1,
) -> None:
    """Run the whole pipeline on the embedded lab: pictures, pairs, training, evaluation, report."""
    from sightline.cli.report import print_results
    from sightline.data.terminal import one_bar
    from sightline.lab.demo import run_demo

    results = run_demo(out, pairs=pairs, scenes=scenes, seeds=tuple(range(seeds)), bar=one_bar)
    print_results(results)
    say(f"report: {out / 'report.html'}")
