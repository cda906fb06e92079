"""A head of one number on a model's last hidden states: the score of a whole answer, or the value before each token.

Bias-free, linear and float32; the states come from `scorer`, each prefix once for all of its answers. It knows no loss:
who trains it is `train`, who judges by it is `judges.reward`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sightline.errors import InputError
from sightline.models.device import in_format
from sightline.models.packing import PackRow
from sightline.models.requests import ScoreRequest
from sightline.models.scorer import answer_states, encode_row
from sightline.models.soundness import not_a_number
from sightline.models.vlm import VLM
from sightline.records.store import write_json

Kind = Literal["reward", "value"]
WEIGHTS, ABOUT = "head.safetensors", "head.json"


class ScalarHead(nn.Module):
    """One number for each hidden state. It begins at zero: no answer is better than another before training."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, states: Float[Tensor, "state dim"]) -> Float[Tensor, "state"]:
        """The numbers (float32), whatever the states' own format."""
        with torch.autocast(states.device.type, enabled=False):
            return states.float() @ self.weight


def new_head(vlm: VLM) -> ScalarHead:
    """A head that fits the model, where the model is."""
    return ScalarHead(int(vlm.base.config.get_text_config().hidden_size)).to(vlm.device)


def answer_scores(
    vlm: VLM, head: ScalarHead, items: Sequence[ScoreRequest], *, autocast: bool = False
) -> Float[Tensor, "answer"]:
    """The score of every answer at the token that ends its turn, in the order of items and answers, in one pass.

    Gradients flow to the head and to whatever in the model requires them.

    Raises:
        InputError: a prefix or an answer that `encoding` refuses; without gradients, a score that is NaN.
    """
    scores = row_scores(vlm, head, [encode_row(vlm, item) for item in items], autocast=autocast)
    if not torch.is_grad_enabled() and scores.isnan().any():
        owners = [item for item in items for _ in item.answers]
        raise not_a_number(vlm.path, owners[int(scores.isnan().nonzero()[0])].prefix)
    return scores


def row_scores(
    vlm: VLM, head: ScalarHead, rows: Sequence[PackRow], *, autocast: bool = False
) -> Float[Tensor, "answer"]:
    """As `answer_scores`, of rows that are ids already."""
    with in_format(vlm, autocast):
        states = answer_states(vlm, rows)
    scores: Tensor = head(states.last)
    return scores


def save_head(head: ScalarHead, kind: Kind, directory: Path) -> None:
    """Write the head into a directory that exists, that of the adapter or model which it was trained with."""
    save_file({"weight": head.weight.detach().cpu().contiguous()}, directory / WEIGHTS)
    write_json(directory / ABOUT, {"kind": kind, "dim": len(head.weight)})


def has_head(directory: Path, kind: Kind) -> bool:
    """Whether a head of this kind lies in the directory."""
    try:
        about = json.loads((directory / ABOUT).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("kind") == kind


def load_head(vlm: VLM, kind: Kind, directory: Path) -> ScalarHead:
    """The head that was saved in `directory`, for the model it was trained with.

    Raises:
        InputError: there is none of this kind, its file is missing or damaged, or it fits another model.
    """
    if not has_head(directory, kind):
        raise InputError(f"{directory} is no {kind} model: it has no {ABOUT} of kind {kind!r}; name one that has")
    try:
        weight = load_file(directory / WEIGHTS)["weight"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{directory / WEIGHTS} cannot be read ({error}); train the {kind} model again") from error
    if not torch.isfinite(weight).all():
        raise InputError(f"{directory / WEIGHTS} has NaN or infinite values; train the {kind} model again")
    head = new_head(vlm)
    if weight.shape != head.weight.shape:
        raise InputError(
            f"{directory / WEIGHTS} is for hidden states of {len(weight)} numbers and {vlm.path} has "
            f"{len(head.weight)}; name the model that it was trained with"
        )
    with torch.no_grad():
        head.weight.copy_(weight)
    return head.requires_grad_(False)
