"""A slow reference: a Llama in float64 in which every linear layer applies one LoRA to one token at a time.

It reads adapters as tensors from disk and shares no layer with PEFT or the code under test.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlavaForConditionalGeneration

LANGUAGE = "base_model.model.model.language_model."


@dataclass(frozen=True)
class SlowLora:
    """Layer -> (A, B) as float64 leaves, and the scale of the update."""

    layers: dict[str, tuple[Tensor, Tensor]]
    scale: float

    @staticmethod
    def read(folder: Path) -> "SlowLora":
        settings = json.loads((folder / "adapter_config.json").read_text())
        tensors = load_file(folder / "adapter_model.safetensors")
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(LANGUAGE) and ".lora_A." in key:
                both = (value, tensors[key.replace(".lora_A.", ".lora_B.")])
                layer = key.removeprefix(LANGUAGE).partition(".lora_")[0]
                found[layer] = (both[0].double().requires_grad_(), both[1].double().requires_grad_())
        return SlowLora(found, settings["lora_alpha"] / settings["r"])

    def change(self, layer: str) -> Tensor:
        """s B A of a layer."""
        down, up = self.layers[layer]
        return self.scale * up @ down


class SlowModel:
    """A model without PEFT; `adapters` by name, one for every token."""

    def __init__(self, directory: Path, adapters: Mapping[str, SlowLora]) -> None:
        self.model: Any = LlavaForConditionalGeneration.from_pretrained(directory, dtype=torch.float64)
        self.model.train(False)
        self.adapters = adapters
        self.names: Sequence[str] = ()
        decoder: Any = self.model.model.language_model
        for name, layer in decoder.named_modules():
            if isinstance(layer, torch.nn.Linear):
                self._patch(name, layer)

    def features(self, pixels: Tensor) -> Tensor:
        pooled = self.model.model.get_image_features(pixels.double(), return_dict=True).pooler_output
        return torch.cat(list(pooled))

    def logp(
        self, ids: Sequence[int], image_id: int, features: Tensor | None, names: Sequence[str], start: int
    ) -> Tensor:
        """Log-prob of `ids[start:]`; image features replace `image_id`, token i uses the adapter `names[i]`."""
        tokens = torch.tensor(ids)
        vectors = self.model.get_input_embeddings()(tokens.masked_fill(tokens == image_id, 0))
        if features is not None:
            vectors = vectors.masked_scatter((tokens == image_id)[:, None], features)
        self.names = names
        hidden = self.model.model.language_model(inputs_embeds=vectors[None], use_cache=False).last_hidden_state[0]
        logps = self.model.lm_head(hidden).log_softmax(-1)
        total: Tensor = logps[start - 1 : -1].gather(1, tokens[start:, None]).sum()
        return total

    def _patch(self, name: str, layer: torch.nn.Linear) -> None:
        def forward(x: Tensor) -> Tensor:
            rows = []
            for token, chosen in zip(x[0], self.names, strict=True):
                output = layer.weight @ token
                lora = self.adapters.get(chosen)
                if lora is not None and name in lora.layers:
                    down, up = lora.layers[name]
                    output = output + lora.scale * (up @ (down @ token))
                rows.append(output)
            return torch.stack(rows)[None]

        layer.forward = forward  # type: ignore[method-assign, assignment]
