"""A DPO step against the hardware floor: its share of this machine's matrix multiplication rate.

The floating-point operations that Sightline's own step does (counted as they run; attention as if no key were masked)
over its seconds, divided by the best rate of square products and of products of the step's own shapes, in the same
dtype, with the same threads, in fresh processes. The step is that of a second epoch, its features and reference
log-probs kept; `two_epochs_share` takes the whole run instead, opening the model and building both included. What is
no matrix product (norms, softmax, optimizer) takes time and counts nothing, so 1 is out of reach.
"""

from typing import Any

from common import Job, Runs, first_job, median, report, training_options, versions
from comparison import describe

IMAGE_AND_PROMPT = 600  # tokens, only for the shapes to try


def main() -> None:
    """Count, time, and print the share."""
    args = training_options(__doc__, ("llava", "qwen2_5_vl", "lab")).parse_args()
    with Runs(args.threads) as runs:
        job = first_job(args, runs.folder)
        prepared = runs.run(job)
        result = measure(runs, job, prepared, repeat=args.repeat)
    result["settings"]["threads"] = args.threads
    report(result, as_json=args.json)


def measure(runs: Runs, job: Job, prepared: dict[str, Any], *, repeat: int) -> dict[str, Any]:
    """The share and its components; the rate is measured before and after the steps."""
    one, two = (runs.run(job, side="sightline", epochs=epochs, count_flops=True) for epochs in (1, 2))
    steps = len(one["losses"])
    flops = (two["flops"] - one["flops"]) / steps
    hidden, inner, vocabulary = prepared["sizes"]
    answers = round(2 * job.batch * median(one["tokens"]))
    tokens = job.batch * IMAGE_AND_PROMPT + answers
    shapes = [(tokens, hidden, inner), (tokens, inner, hidden), (tokens, hidden, hidden), (answers, hidden, vocabulary)]
    shape_job = {"shapes": shapes, "dtype": job.dtype, "device": job.device}
    rates = [runs.child("matmul.py", shape_job)]
    timed = [runs.run(job, side="sightline", epochs=2) for _ in range(repeat)]
    rates.append(runs.child("matmul.py", shape_job))
    best = max(rates, key=lambda rate: rate["flops_per_second"])
    seconds = median(second for run in timed for second in run["step_seconds"][steps:])
    whole = median(run["seconds"] for run in timed)
    return {
        "share_of_matmul_rate": flops / seconds / best["flops_per_second"],
        "two_epochs_share": two["flops"] / whole / best["flops_per_second"],
        "gflop_per_step": flops / 1e9,
        "step_seconds": seconds,
        "gflops_per_second": flops / seconds / 1e9,
        "matmul_gflops_per_second": best["flops_per_second"] / 1e9,
        "matmul_shape": best["shape"],
        "settings": describe(job, prepared, one),
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
