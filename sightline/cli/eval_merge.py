"""`sightline eval-merge`: the shards of one evaluation become the evaluation; the work is `sightline.evals.merging`."""

from pathlib import Path
from typing import Annotated

import typer

from sightline.data.terminal import say
from sightline.evals.merging import merge_evaluations
from sightline.evals.run import Files

app = typer.Typer()


@app.command()
def merge(
    parts: Annotated[list[Path], typer.Argument(help="Output directories of `sightline eval --shard`, all of them.")],
    out: Annotated[Path, typer.Option(help="Directory to write: an evaluation as if it had not been divided.")],
    data: Annotated[Path | None, typer.Option(help="Folder of official files, as given to `eval`.")] = None,
    synonyms: Annotated[Path | None, typer.Option(help="Official word list, as given to `eval`.")] = None,
) -> None:
    """Bring the shards of an evaluation together and score all answers.

    For example: sightline eval-merge EVAL_0 EVAL_1 --data DIR --out EVAL
    """
    manifest = merge_evaluations(parts, out, Files(data, None, synonyms))
    say(f"evaluation: {out} ({sum(manifest.counts.values())} answers of {len(parts)} shards)")
