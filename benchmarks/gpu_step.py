"""The comparison of `dpo_step.py` and the share of `floor.py` at real size, on a GPU: random weights, bfloat16, LoRA.

Models of the shapes of LLaVA-NeXT-7B (2,340 image tokens) and Qwen2.5-VL-7B (2,000), written to a temporary directory
(some 15 GB each). Weights and autocast are bfloat16 on both sides, so losses agree less: the difference is printed.
Opening the model takes long here; `speedup_later_steps` leaves it out. Without a CUDA device it says so and ends.
"""

import os

import torch
from common import Runs, first_job, has_trl, report, training_options
from comparison import compare
from floor import measure

BOTH = ("llava_next", "qwen2_5_vl")


def main() -> None:
    """Run both models, one after the other."""
    parser = training_options(__doc__, ("both", *BOTH), steps=16, batch=2, dtype="bfloat16", threads=os.cpu_count())
    parser.add_argument(
        "--skip-floor", action="store_true", help="compare with TRL only, without the share of the matrix rate"
    )
    args = parser.parse_args()
    missing = "no CUDA device" if not torch.cuda.is_available() else "TRL is not installed" if not has_trl() else ""
    if missing:
        report({"skipped": missing}, as_json=args.json)
        return
    result = {"device": torch.cuda.get_device_name()}
    for kind in BOTH if args.model == "both" else (args.model,):
        with Runs(args.threads) as runs:
            job = first_job(args, runs.folder, kind=kind, size="7b", device="cuda")
            prepared = runs.run(job)
            share = {} if args.skip_floor else measure(runs, job, prepared, repeat=args.repeat)
            result[kind] = {**share, **compare(runs, job, prepared, repeat=args.repeat, full=False)}
    report(result, as_json=args.json)


if __name__ == "__main__":
    main()
