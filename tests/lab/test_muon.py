"""Muon in float32 against torch's own in bfloat16, and its iteration against singular values in double."""

import pytest
import torch

from sightline.errors import InputError
from sightline.lab.recipe.optimize import Float32Muon, make_optimizers, orthogonalize


@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_in_float32_goes_where_torchs_goes(nesterov: bool) -> None:
    """Ten steps on wide, tall and square matrices: the same path but for the rounding of bfloat16 on torch's side."""
    shapes = ((24, 40), (40, 24), (24, 24), (24, 40))
    paths = []
    for kind in (torch.optim.Muon, Float32Muon):
        torch.manual_seed(0)
        matrices = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        start = [matrix.detach().clone() for matrix in matrices]
        muon = kind(matrices, lr=0.05, weight_decay=0.1, nesterov=nesterov, adjust_lr_fn="match_rms_adamw")
        for _ in range(10):
            muon.zero_grad()
            sum((matrix - 1).square().sum() for matrix in matrices).backward()  # type: ignore[union-attr]
            muon.step()
        paths.append([matrix.detach() - before for matrix, before in zip(matrices, start, strict=True)])
    for theirs, ours in zip(*paths, strict=True):
        assert theirs.norm() > 1
        assert (ours - theirs).norm() < 0.01 * theirs.norm()


def test_orthogonalized_in_double_as_worked_by_singular_values() -> None:
    """The iteration acts on singular values alone: the quintic, applied to each, between the same singular vectors."""
    matrix = torch.randn(3, 12, 7, generator=torch.Generator().manual_seed(1))
    coefficients = (3.4445, -4.775, 2.0315)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / matrix.double().norm(dim=(1, 2)).unsqueeze(-1)
    for _ in range(5):
        values = sum(c * values**power for c, power in zip(coefficients, (1, 3, 5), strict=True))
    wanted = (left * values.unsqueeze(-2)) @ right
    torch.testing.assert_close(orthogonalize(matrix, coefficients, 5, 1e-7).double(), wanted, rtol=1e-4, atol=1e-5)


def test_a_torch_without_muon_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    weight = torch.nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(InputError, match=r"Muon, which torch .* lacks; install torch 2\.9"):
        make_optimizers([("model.layers.0.weight", weight)], 0.1, 0.0)
