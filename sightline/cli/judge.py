"""`sightline judge`: how often a judge, such as a reward model, prefers the chosen answer of a pair.

It reads the command line and prints what was found; the work is `sightline.pairs.judges.accuracy`.
"""

from pathlib import Path
from typing import Annotated

import typer

from sightline.config import MAX_SEED
from sightline.data.terminal import say

app = typer.Typer()


@app.command()
def judge(
    pairs: Annotated[Path, typer.Option(help="Directory of preference pairs.")],
    model: Annotated[Path | None, typer.Option(help="Directory of the model, for judges that ask it.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many pairs.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with the judge's config under judge.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the resamples behind the interval.")] = 0,
) -> None:
    """Measure a judge on pairs whose better answer is known.

    For example: sightline judge --pairs DIR --set judge.name=reward --set judge.model=DIR
    --set judge.adapter=TRAIN_DIR/adapter
    """
    from itertools import islice

    from sightline.config import Config, load_config
    from sightline.data.preference_dataset import read_pairs
    from sightline.data.progress import one_bar
    from sightline.models.loading import load_vlm
    from sightline.pairs.builder import Tools
    from sightline.pairs.judges.accuracy import accuracy_of
    from sightline.pairs.judges.table import JudgeConfig

    class JudgeSettings(Config):
        judge: JudgeConfig

    settings = load_config(JudgeSettings, config, overrides or ())
    rows = list(islice(read_pairs(pairs), limit))
    folder = pairs.absolute()
    opened = settings.judge.open(Tools(folder, folder, seed, None if model is None else load_vlm(model)))
    done = 0
    with one_bar("pairs") as progress:

        def seen(count: int) -> None:
            nonlocal done
            done += count
            progress(done, len(rows))

        found = accuracy_of(opened, rows, folder, seen, seed=seed)
    share = found.share
    interval = "" if share.ci95 is None else f" (95 % interval {100 * share.ci95[0]:.1f} to {100 * share.ci95[1]:.1f})"
    say(
        f"the chosen answer is preferred in {100 * (share.value or 0.0):.1f} % of {share.n} pairs{interval}; "
        f"{found.ties} ties, {share.unscored} unscored"
    )
