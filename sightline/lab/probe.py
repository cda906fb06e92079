"""Can the tower see what the model fails to say? A small probe on frozen vision features.

Perception must exceed speech, else alignment has nothing to recover. The probe is trained on unbiased scenes, so it
cannot use what goes with what; it sees each patch's feature, never the text side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionModel

from sightline.lab.drawing import render
from sightline.lab.recipe.optimize import fast_format
from sightline.lab.recipe.perception import normalized, patch_features
from sightline.lab.vocabulary import KINDS
from sightline.lab.world import Scene

_BATCH = 64  # scenes a step


@dataclass(frozen=True)
class ProbeResult:
    """Per scene: kinds found that are there, kinds reported, kinds there."""

    found: np.ndarray
    reported: np.ndarray
    present: np.ndarray


class Probe(nn.Module):
    """Kind scores of each patch (one hidden layer), pooled over patches by a smooth maximum with a learnt scale."""

    def __init__(self, features: Tensor, hidden: int = 192) -> None:
        """`features` [scene, patch, width] are those it will be trained on, for their mean and spread."""
        super().__init__()
        width = features.shape[-1]
        self.mean = nn.Parameter(features.mean((0, 1)), requires_grad=False)
        self.spread = nn.Parameter(features.std((0, 1)), requires_grad=False)
        self.patch = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, len(KINDS)))
        self.pool = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.zeros(len(KINDS)))

    def forward(self, features: Tensor) -> Tensor:
        """[scene, patch, width] -> logits [scene, kind]."""
        scale = self.pool.abs() + 1e-3
        scores = self.patch((features - self.mean) / self.spread)
        return torch.logsumexp(scores * scale, dim=1) / scale + self.bias


@torch.no_grad()
def features_of(tower: CLIPVisionModel, scenes: Sequence[Scene]) -> Tensor:
    """Frozen patch features of scenes, float32 [scene, patch, width]."""
    chunks = []
    for start in range(0, len(scenes), 64):
        pixels = np.stack([np.asarray(render(scene)) for scene in scenes[start : start + 64]])
        with fast_format(tower.device):
            chunks.append(patch_features(tower, normalized(pixels)).float())
    return torch.cat(chunks)


def present_kinds(scenes: Sequence[Scene]) -> Tensor:
    """float32 [scene, kind], 1 where the kind is there."""
    return torch.tensor([[float(kind in scene.kinds) for kind in KINDS] for scene in scenes])


def train_probe(features: Tensor, present: Tensor, epochs: int = 12, seed: int = 0) -> Probe:
    """Fit the probe by binary cross-entropy."""
    torch.manual_seed(seed)
    probe = Probe(features)
    optimizer = torch.optim.AdamW([p for p in probe.parameters() if p.requires_grad], lr=2e-3, weight_decay=1e-2)
    batches = math.ceil(len(features) / _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=epochs * batches)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(features), generator=generator).split(_BATCH):
            loss = F.binary_cross_entropy_with_logits(probe(features[rows]), present[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return probe.eval()


@torch.no_grad()
def measure(probe: Probe, features: Tensor, present: Tensor, threshold: float = 0.5) -> ProbeResult:
    """Which kinds the probe reports at a probability over `threshold`, scene by scene."""
    reported = (probe(features).sigmoid() > threshold).float()
    return ProbeResult(
        found=(reported * present).sum(1).numpy(), reported=reported.sum(1).numpy(), present=present.sum(1).numpy()
    )
