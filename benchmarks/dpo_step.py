"""One DPO run by Sightline and by TRL's DPOTrainer on the same model and pairs: speed, memory, and equal losses.

Both train the same LoRA (equal initial weights, all linear layers of the language model) with AdamW at a constant rate
on the same pairs in the same order, in fresh processes that take turns. Sightline's caches start empty, and building
them is timed. TRL runs as its users run it, with its own collator and its defaults for all that does not change the
result: gradient checkpointing on (--no-trl-gradient-checkpointing turns it off), no dropout, reference = adapter off,
log-probs in chunks from its fused head, metrics at every step, fused AdamW, no data workers. Changed are: bfloat16 off
for float32 (TRL's default is on), the constant rate, the order of the pairs, no cut at 1,024 tokens, no checkpoints on
disk. TRL refuses to keep reference log-probs where there are images, so its epochs cost alike: without --full its time
for three is that of one and two more of its median steps.
"""

import argparse
import sys
from dataclasses import replace

from common import Job, Runs, first_job, has_trl, report, training_options
from comparison import compare


def main() -> None:
    """Run both sides and print the ratios."""
    parser = training_options(__doc__, ("llava", "qwen2_5_vl", "lab"))
    parser.add_argument(
        "--trl-gradient-checkpointing",
        action=argparse.BooleanOptionalAction,
        default=Job.trl_gradient_checkpointing,
    )
    parser.add_argument("--both", action="store_true", help="run TRL with and without gradient checkpointing")
    parser.add_argument("--full", action="store_true", help="also measure TRL's three epochs")
    args = parser.parse_args()
    if not has_trl():
        sys.exit("TRL is not installed; it comes with the extra: pip install -e '.[bench]'")
    with Runs(args.threads) as runs:
        job = first_job(args, runs.folder, trl_gradient_checkpointing=args.trl_gradient_checkpointing)
        prepared = runs.run(job)
        result = compare(runs, job, prepared, repeat=args.repeat, full=args.full)
        if args.both:
            other = replace(job, trl_gradient_checkpointing=not job.trl_gradient_checkpointing)
            result["other_checkpointing"] = compare(runs, other, prepared, repeat=args.repeat, full=args.full)
    result["settings"]["threads"] = args.threads
    report(result, as_json=args.json)


if __name__ == "__main__":
    main()
