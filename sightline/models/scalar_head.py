"""A scalar head on a model's last hidden states: the reward of a whole answer, or the value before each token.

It is linear, without bias, in float32; the states come from `scorer`. `train` trains it and `judges.reward` judges by
it; no loss is defined here.
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
from sightline.models.soundness import nan_error
from sightline.models.vlm import VLM
from sightline.records.store import write_json

Kind = Literal["reward", "value"]
WEIGHTS, ABOUT = "head.safetensors", "head.json"


class ScalarHead(nn.Module):
    """A number for each hidden state. Weights start at zero, so that all answers are equal before training."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(dim))

    def forward(self, states: Float[Tensor, "state dim"]) -> Float[Tensor, "state"]:
        """The numbers (float32) for states of any dtype."""
        with torch.autocast(states.device.type, enabled=False):
            return states.float() @ self.weight


def new_head(vlm: VLM) -> ScalarHead:
    """Create a head for the model on the model's device."""
    return ScalarHead(int(vlm.base.config.get_text_config().hidden_size)).to(vlm.device)


def answer_scores(
    vlm: VLM, head: ScalarHead, items: Sequence[ScoreRequest], *, autocast: bool = False
) -> Float[Tensor, "answer"]:
    """Score every answer at the token that ends its turn, in the order of items and answers, in one pass.

    Gradients flow to the head and to all weights of the model that require them.

    Raises:
        InputError: `encoding` refuses a prefix or an answer; without gradients, a score is NaN.
    """
    scores = row_scores(vlm, head, [encode_row(vlm, item) for item in items], autocast=autocast)
    if not torch.is_grad_enabled() and scores.isnan().any():
        owners = [item for item in items for _ in item.answers]
        raise nan_error(vlm.path, owners[int(scores.isnan().nonzero()[0])].prefix)
    return scores


def row_scores(
    vlm: VLM, head: ScalarHead, rows: Sequence[PackRow], *, autocast: bool = False
) -> Float[Tensor, "answer"]:
    """As `answer_scores`, for encoded rows."""
    with in_format(vlm, autocast):
        states = answer_states(vlm, rows)
    scores: Tensor = head(states.last)
    return scores


def save_head(head: ScalarHead, kind: Kind, directory: Path) -> None:
    """Save the head into the existing directory of the adapter or model that it was trained with."""
    save_file({"weight": head.weight.detach().cpu().contiguous()}, directory / WEIGHTS)
    write_json(directory / ABOUT, {"kind": kind, "dim": len(head.weight)})


def has_head(directory: Path, kind: Kind) -> bool:
    """Whether the directory holds a head of this kind."""
    try:
        about = json.loads((directory / ABOUT).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and about.get("kind") == kind


def load_head(vlm: VLM, kind: Kind, directory: Path) -> ScalarHead:
    """Load the head that was saved in `directory` for this model.

    Raises:
        InputError: no head of this kind, a missing or damaged file, or a head of another model.
    """
    if not has_head(directory, kind):
        raise InputError(f"{directory} is not a {kind} model: it has no {ABOUT} of kind {kind!r}; name one that has")
    try:
        weight = load_file(directory / WEIGHTS)["weight"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{directory / WEIGHTS} cannot be read ({error}); train the {kind} model again") from error
    if not torch.isfinite(weight).all():
        raise InputError(f"{directory / WEIGHTS} has NaN or infinite values; train the {kind} model again")
    head = new_head(vlm)
    if weight.shape != head.weight.shape:
        raise InputError(
            f"{directory / WEIGHTS} is for hidden states of size {len(weight)} and {vlm.path} has "
            f"{len(head.weight)}; name the model that it was trained with"
        )
    with torch.no_grad():
        head.weight.copy_(weight)
    return head.requires_grad_(False)
