"""Inputs of Transformers' own forward with hidden image tokens: masked, or left out where layers are recurrent."""

from typing import Any

import torch

from sightline.models.linear_layers import stateful_layers
from sightline.models.packing import PackRow
from sightline.models.unbatched import unbatched_inputs
from sightline.models.vlm import VLM


def hiding_inputs(vlm: VLM, row: PackRow) -> dict[str, Any]:
    """Inputs of the forward for the row's first answer; positions are those of the whole row."""
    answer = row.answers[0]
    inputs = unbatched_inputs(vlm, row.prefix, answer)
    ids = torch.tensor((*row.prefix.ids, *answer))
    is_image = torch.tensor(row.prefix.ids) == vlm.image_token_id
    places = is_image.nonzero()[:, 0][sorted(row.hidden)]
    prefix = vlm.family.positions(vlm.base, ids[: len(is_image)], is_image, row.prefix.images.tensors)
    more = prefix.max() + 1 + torch.arange(len(answer)).expand(len(prefix), -1)
    positions = torch.cat([prefix, more], dim=1)[:, None]
    kept = torch.ones(len(ids), dtype=torch.bool)
    kept[places] = False
    if not stateful_layers(vlm.base.get_decoder()):
        return {
            **inputs,
            "attention_mask": kept[None].long(),
            "position_ids": vlm.family.decoder_positions(positions),
        }
    # A mask does not hide from a recurrent layer. The mask of ones keeps Transformers from reading the gaps between
    # positions as boundaries of packed sequences.
    with torch.no_grad():
        images = {name: value for name, value in inputs.items() if name in row.prefix.images.tensors}
        features = vlm.family.features(vlm.base, images) if images else None
        embedded = vlm.family.embed(vlm.base, ids, torch.nn.functional.pad(is_image, (0, len(answer))), features)
    return {
        "inputs_embeds": embedded[None, kept],
        "attention_mask": torch.ones(1, int(kept.sum()), dtype=torch.long),
        "position_ids": vlm.family.decoder_positions(positions[:, :, kept]),
    }
