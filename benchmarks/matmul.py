"""This machine's matrix multiplication rate: the best of square products and of the requested shapes."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

SECONDS = 0.5  # for each shape


def best_rate(shapes: list[list[int]], dtype: str, device: str) -> dict[str, Any]:
    """The shape (m, k, n) with the highest rate of `(m, k) @ (k, n)`, and that rate, each shape at its best."""
    squares = [512, 1024, 2048] if device == "cpu" else [2048, 4096, 8192, 16384]
    rates = {}
    for m, k, n in [*((side,) * 3 for side in squares), *shapes]:
        left = torch.randn(m, k, dtype=getattr(torch, dtype), device=device)
        right = torch.randn(n, k, dtype=getattr(torch, dtype), device=device).T  # as a linear layer holds its weights
        rates[m, k, n] = 2 * m * k * n / _fastest(left, right, device)
    shape = max(rates, key=rates.__getitem__)
    return {"flops_per_second": rates[shape], "shape": shape}


def _fastest(left: torch.Tensor, right: torch.Tensor, device: str) -> float:
    seconds, end = [], time.perf_counter() + SECONDS
    while len(seconds) < 3 or time.perf_counter() < end:
        started = time.perf_counter()
        left @ right
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


if __name__ == "__main__":
    request, answer = map(Path, sys.argv[1:])
    answer.write_text(json.dumps(best_rate(**json.loads(request.read_text()))))
