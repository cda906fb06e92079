"""Can the tower see what the model fails to say? A linear probe on frozen vision features.

Perception must exceed speech, else alignment has nothing to recover. The probe is trained on unbiased scenes, so it
cannot use what goes with what; it sees each patch's feature, never the text side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionModel

from sightline.lab.drawing import render
from sightline.lab.recipe.perception import normalized, patch_features
from sightline.lab.vocabulary import KINDS
from sightline.lab.world import Scene


@dataclass(frozen=True)
class ProbeResult:
    """Per scene: kinds found that are there, kinds reported, kinds there."""

    found: np.ndarray
    reported: np.ndarray
    present: np.ndarray


class Probe(nn.Module):
    """Kind scores of each patch (linear), pooled over patches by a smooth maximum with a learnt bias."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Linear(width, len(KINDS))
        self.pool = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.zeros(len(KINDS)))

    def forward(self, features: Tensor) -> Tensor:
        """[scene, patch, width] -> logits [scene, kind]."""
        scale = self.pool.abs() + 1e-3
        return torch.logsumexp(self.patch(features) * scale, dim=1) / scale + self.bias


@torch.no_grad()
def features_of(tower: CLIPVisionModel, scenes: Sequence[Scene]) -> Tensor:
    """Frozen patch features of scenes, float32 [scene, patch, width]."""
    chunks = []
    for start in range(0, len(scenes), 64):
        pixels = np.stack([np.asarray(render(scene)) for scene in scenes[start : start + 64]])
        chunks.append(patch_features(tower, normalized(pixels)).float())
    return torch.cat(chunks)


def present_kinds(scenes: Sequence[Scene]) -> Tensor:
    """float32 [scene, kind], 1 where the kind is there."""
    return torch.tensor([[float(kind in scene.kinds) for kind in KINDS] for scene in scenes])


def train_probe(features: Tensor, present: Tensor, epochs: int = 12, seed: int = 0) -> Probe:
    """Fit the probe by binary cross-entropy."""
    torch.manual_seed(seed)
    probe = Probe(features.shape[-1])
    optimizer = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(features), generator=generator).split(64):
            loss = F.binary_cross_entropy_with_logits(probe(features[rows]), present[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return probe.eval()


@torch.no_grad()
def measure(probe: Probe, features: Tensor, present: Tensor, threshold: float = 0.5) -> ProbeResult:
    """Which kinds the probe reports at a probability over `threshold`, scene by scene."""
    reported = (probe(features).sigmoid() > threshold).float()
    return ProbeResult(
        found=(reported * present).sum(1).numpy(), reported=reported.sum(1).numpy(), present=present.sum(1).numpy()
    )
