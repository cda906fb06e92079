"""Share of BDHS answers still similar to their references after each try: arXiv 2407.02477, figure 10, in the lab.

One run of the builder for each rho (picture hidden) and each number of noise steps (picture noised), on the same
samples; the shares are those of the manifests. `--plot FILE` draws them.
"""

import json
import os
import tempfile
from pathlib import Path

from common import LAB, options

HIDDEN = (0.0, 0.5, 0.75, 0.9, 0.97, 1.0)
NOISED = (100, 300, 500, 800)


def main() -> None:
    """Build, collect, print and draw."""
    parser = options(__doc__)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--threshold", type=float, default=0.97, help="similarity threshold [the paper's]")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SIGHTLINE_CACHE"] = str(Path(folder) / "cache")
        for rho, steps in [(rho, 0) for rho in HIDDEN] + [(0.0, steps) for steps in NOISED]:
            name = f"noise {steps}" if steps else f"rho {rho:g}"
            found[name] = shares(Path(folder), (rho, steps), args.samples, args.threshold)
            print(name, *(f"{share:.3f}" for share in found[name]), flush=True)
    if args.plot:
        draw(found, args.samples, args.threshold, args.plot)
    if args.json:
        print(json.dumps({"samples": args.samples, "similar_after_try": found}))


def shares(folder: Path, weakened: tuple[float, int], count: int, threshold: float) -> list[float]:
    """Shares still similar after each try."""
    from sightline.builders.bdhs import BDHS, BDHSConfig
    from sightline.builders.build import BuildPlan, build_dataset
    from sightline.config import load_config
    from sightline.lab.samples import ScenesConfig, write_scenes

    samples = write_scenes(ScenesConfig(described=1.0), "preference", count, folder / "samples")
    rho, steps = weakened
    settings = (f"rho={rho}", f"noise_steps={steps}", f"threshold={threshold}")
    config = load_config(BDHSConfig, LAB / "configs" / "bdhs.yaml", settings)
    manifest = build_dataset(BuildPlan(BDHS, config), LAB / "base", samples, folder / f"pairs-{rho}-{steps}")
    return [manifest.numbers[f"share_similar_after_try_{number}"] for number in range(1, config.tries + 1)]


def draw(found: dict[str, list[float]], count: int, threshold: float, path: Path) -> None:
    """Two panels with one scale: hidden and noised."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True, layout="constrained")
    for panel, kind, title in zip(panels, ("rho", "noise"), ("image tokens hidden", "picture noised"), strict=True):
        for name, values in found.items():
            if name.startswith(kind):
                panel.plot(range(1, len(values) + 1), [100 * value for value in values], marker="o", label=name)
        panel.set(title=title, xlabel="try", xticks=range(1, 6), ylim=(0, 100))
        panel.legend(fontsize=8)
    panels[0].set_ylabel(f"similarity {threshold:g} or more,\n% of {count} answers")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
