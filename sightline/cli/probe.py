"""`sightline probe`: whether a model's log-probs depend on its pictures.

It reads the command line and prints what was found; the probe itself is `sightline.models.image_use`.
"""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from sightline.data.terminal import say

app = typer.Typer()


@app.command()
def probe(
    model: Annotated[Path, typer.Option(help="Directory of the model, with its processor.")],
    pairs: Annotated[Path, typer.Option(help="Directory of preference pairs.")],
    count: Annotated[int, typer.Option(min=1, help="Pairs with pictures to ask.")] = 16,
) -> None:
    """Score answers with their pictures and with gray ones; a model that ignores its pictures ends with code 2.

    Training asks the same of two pairs before it starts.
    """
    from sightline.data.preference_dataset import read_pairs
    from sightline.errors import InputError
    from sightline.models.image_use import image_use, require_image_use
    from sightline.models.loading import load_vlm
    from sightline.train.admission import resolve_images
    from sightline.train.scoring import to_scored

    shown = (to_scored(resolve_images(pair, pairs)) for pair in read_pairs(pairs) if pair.images)
    items = list(islice(shown, count))
    vlm = load_vlm(model)
    found = image_use(vlm, items)
    if found is None:
        raise InputError(f"{pairs} holds no pair with a picture; name pairs that have some")
    say(
        f"gray pictures move the log-probs of {found.answers} answers by {found.mean:.3g} nats (most: {found.most:.3g})"
    )
    require_image_use(vlm, items)
