"""BDHS pairs per second on the lab's model: Sightline's builder against a plain loop over Transformers' `generate`.

Both use the demo's bdhs.yaml on the same samples, from opening the model to the last answer, in fresh processes that
take turns. The loop calls `generate` once for every sentence of every try of every sample; it may run on fewer
samples (--loop-samples) and is then scaled. `same_greedy_text` counts continuations that are equal where nothing is
random: what both hide is the same.
"""

from common import Runs, median, options, report, versions


def main() -> None:
    """Run both sides and print the ratio."""
    parser = options(__doc__)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--loop-samples", type=int, default=32, help="number of those samples for the loop")
    args = parser.parse_args()
    samples, fewer = (4, 2) if args.tiny else (args.samples, min(args.samples, args.loop_samples))
    with Runs(args.threads) as runs:
        job = {"folder": runs.folder, "out": runs.folder, "count": samples, "seed": 0}
        runs.child("bdhs_sides.py", {**job, "side": "make"})
        ours, loops = [], []
        for number in range(args.repeat):
            out = f"{runs.folder}/built-{number}"
            ours.append(runs.child("bdhs_sides.py", {**job, "side": "sightline", "out": out}))
            loops.append(runs.child("bdhs_sides.py", {**job, "side": "transformers", "count": fewer}))
        agreed = runs.child("bdhs_sides.py", {**job, "side": "agree", "count": min(samples, 16)})
    speeds = [median(run["samples"] / run["seconds"] for run in side) for side in (ours, loops)]
    result = {
        "speedup": speeds[0] / speeds[1],
        "same_greedy_text": [agreed["same"], agreed["of"]],
        "scaled": fewer < samples,
        "sightline": {"pairs_per_second": speeds[0], "samples": samples, "tries": ours[0]["tries"]},
        "transformers": {"pairs_per_second": speeds[1], "samples": fewer, "tries": loops[0]["tries"]},
        "settings": {"threads": args.threads, "repeat": args.repeat},
        "versions": versions(),
    }
    report(result, as_json=args.json)


if __name__ == "__main__":
    main()
