"""Full fine-tuning: every weight but those of the vision tower, and the model saved as one plain directory.

LoRA is `adapters`; nothing here knows an optimizer or a loss.
"""

from pathlib import Path

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


def save_model(vlm: VLM, directory: Path) -> None:
    """Write model and processor, which Transformers opens as it would the original."""
    vlm.base.save_pretrained(str(directory))
    vlm.processor.save_pretrained(str(directory))
