"""Full fine-tuning: every weight but those of the vision tower, and the model saved as one plain directory.

LoRA is `adapters`; nothing here knows an optimizer or a loss.
"""

from pathlib import Path

from torch import Tensor

from sightline.models.checkpoint_names import published_names
from sightline.models.vlm import VLM


def train_fully(vlm: VLM) -> VLM:
    """Let language model, head and projector be trained, in place; the vision tower stays frozen."""
    told = (vlm.base.get_decoder(), vlm.base.get_output_embeddings(), vlm.base.get_input_embeddings())
    for part in told:
        part.requires_grad_(True)
    for name, weight in vlm.base.named_parameters():
        if vlm.family.projector is not None and vlm.family.projector in name.split("."):
            weight.requires_grad_(True)
    return vlm


def save_model(vlm: VLM, directory: Path, weights: dict[str, Tensor] | None = None) -> None:
    """Write model and processor, which Transformers and vLLM open as they would the original.

    `weights` are the model's by name where it has only a part of them itself.
    """
    with published_names(vlm.base):
        vlm.base.save_pretrained(str(directory), state_dict=weights)
    vlm.processor.save_pretrained(str(directory))
