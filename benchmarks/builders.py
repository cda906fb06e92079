"""All pair builders on the lab's scenes, judged by the lab's truth: cost, mistakes, shortcut cues.

Each builder runs with its config of `sightline/lab/configs` on the same samples (questions for `correctness`), the
caches empty. `sightline check` measures the shortcut cues. One table row per builder; no ratios to peers.
"""

import json
import os
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

from common import LAB, options

SETTINGS: dict[str, tuple[str, ...]] = {
    "bdhs": (),
    "bdhs, noise": ("rho=0", "noise_steps=500"),
    "bdhs, unguided": ("guided=false",),
    "distorted": (),
    "distorted, argmax": ("rule=argmax",),
    "corrupted": (),
    "altered": (),
    "corrected": (),
    "dropout-ntp": (),
    "correctness": (),
    "claims": (),
    "ranked": (),
    "beam": (),
    "weakened": (),
    "weakened, own": ("chosen=own", "image=flip"),
}


def main() -> None:
    """Build, judge, print."""
    parser = options(__doc__)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--only", nargs="*", default=list(SETTINGS))
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(args.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.only:
            os.environ["SIGHTLINE_CACHE"] = str(Path(folder) / "cache" / name)
            rows.append(measure(name, SETTINGS[name], args.samples, Path(folder)))
            print(" | ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if args.json:
        print(json.dumps({"samples": args.samples, "builders": rows}))


def measure(name: str, settings: tuple[str, ...], count: int, folder: Path) -> dict[str, Any]:
    """The row of one builder."""
    from sightline.builders.build import CheckPlan, build_dataset
    from sightline.builders.registry import get_builder
    from sightline.config import load_config
    from sightline.data.preference_dataset import read_pairs
    from sightline.data.samples import read_samples
    from sightline.lab.samples import ScenesConfig, write_scenes

    builder = get_builder(name.partition(",")[0])
    asks = {"described": 0.0, "captioned": 0.0} if builder.name == "correctness" else {"described": 1.0}
    samples = write_scenes(ScenesConfig.model_validate(asks), "preference", count, folder / f"samples-{len(asks)}")
    config = load_config(builder.config, LAB / "configs" / f"{builder.name}.yaml", settings)
    out = folder / name.replace(", ", "-")
    start = time.monotonic()
    manifest = build_dataset(CheckPlan(builder, config), LAB / "base" if builder.needs_model else None, samples, out)
    seconds = time.monotonic() - start
    truths = {sample.id: sample for sample in read_samples(samples)}
    pairs = list(read_pairs(out))
    tokens = sum(v for k, v in manifest.numbers.items() if k in ("generated_tokens", "forced_tokens"))
    verdicts = [judge_pair(truths[pair.id.rpartition("/")[0]], pair) for pair in pairs]
    return {
        "builder": name,
        "pairs": len(pairs),
        "pairs_per_minute": round(60 * len(pairs) / seconds),
        "tokens_per_pair": round(tokens / len(pairs), 1),
        "rejected_hallucinated": round(fmean(v["rejected_hallucinated"] for v in verdicts), 3),
        "rejected_wrong": round(fmean(v["rejected_wrong"] for v in verdicts), 3),
        "chosen_clean": round(1 - fmean(v["chosen_wrong"] for v in verdicts), 3),
        "length_ratio": round(fmean(v["words_ratio"] for v in verdicts), 3),
        "give_away": give_away(out, folder / f"check-{out.name}"),
    }


def judge_pair(sample: Any, pair: Any) -> dict[str, float]:
    """Judge both answers by the lab's truth; `wrong` is any mistake, `hallucinated` an absent object named."""
    from sightline.lab.oracle import score
    from sightline.lab.parser import judge, parse_claims
    from sightline.lab.world import Scene
    from sightline.models.requests import JudgeInput, Prefix

    scene = Scene.from_truth(sample.truth)
    found: dict[str, float] = {"words_ratio": len(pair.rejected.split()) / max(1, len(pair.chosen.split()))}
    for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        verdict = score(JudgeInput(Prefix((), sample.prompt), text, sample.reference, sample.truth))
        found[f"{side}_wrong"] = float(verdict.aspects.get("mistakes", 0) < 0)
        found[f"{side}_hallucinated"] = float(bool(judge(parse_claims(text), scene).hallucinated))
    return found


def _no_bar(_label: str) -> Any:
    return lambda _done, _total: None


def give_away(pairs: Path, out: Path) -> dict[str, Any]:
    """Cross-validated AUC of a text-only bag of words, with its interval."""
    from sightline.check.findings import GIVE_AWAY, CheckConfig
    from sightline.check.run import CheckPlan, check_into

    report = check_into(CheckPlan(pairs, CheckConfig()), out, _no_bar)
    line = next(line for line in report.lines if line.check == f"{GIVE_AWAY}bag of words")
    assert line.value is not None and line.value.value is not None
    return {"auc": round(line.value.value, 3), "ci95": [round(x, 3) for x in line.value.ci95 or ()], "n": line.n}


if __name__ == "__main__":
    main()
