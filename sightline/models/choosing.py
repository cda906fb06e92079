"""Choosing the next token from logits: greedy, or temperature and top-p by inverse transform of given uniform numbers.

Pure functions; where the uniform numbers come from and what happens to the token is `sampler`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def choose_tokens(
    logits: Float[Tensor, "row vocab"], uniforms: Float[Tensor, "row"], *, temperature: float, top_p: float
) -> Int[Tensor, "row"]:
    """The next token of every row; argmax at temperature 0, where `uniforms` (in [0, 1)) go unused.

    Otherwise token t with cumulative probability F(t-1) <= u < F(t), in float64 and in the order of the vocabulary, so
    that rounding moves the borders between tokens by as little as it moves their probabilities.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.double() / temperature, -1)
    if top_p < 1:
        probabilities = keep_nucleus(probabilities, top_p)
    cumulative = probabilities.cumsum(-1)
    return torch.searchsorted(cumulative, uniforms.double()[:, None] * cumulative[:, -1:], right=True)[:, 0]


def keep_nucleus(probabilities: Float[Tensor, "row vocab"], top_p: float) -> Float[Tensor, "row vocab"]:
    """Set to 0 all but the smallest set of likeliest tokens that holds `top_p` (Holtzman et al. 2020); no rescaling."""
    ordered, order = probabilities.sort(dim=-1, descending=True)
    likelier = functional.pad(ordered.cumsum(-1)[..., :-1], (1, 0))  # what the tokens before this one hold
    outside = likelier >= top_p
    return torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(outside, 0.0))
