"""Answers per second of an evaluation whose questions share pictures, against the same questions one by one.

Lab-POPE (six questions a picture) on the lab's model, greedy, in float32, in fresh processes that take turns: the
questions in the benchmark's order and in batches, as `sightline eval` asks them, and one at a time. `sharing` compares
with batches of the same size in which no two questions are on one picture, so that it is what sharing alone gives.
Features of pictures start unknown and are kept, on every side.
"""

from typing import Any

from common import Runs, median, options, report, versions

SIDES = ("together", "apart", "one by one")


def main() -> None:
    """Run the three sides and print their ratios."""
    parser = options(__doc__)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--batch", type=int, default=32, help="questions in one batch, as in `sightline eval`")
    args = parser.parse_args()
    scenes = 3 if args.tiny else args.scenes
    with Runs(args.threads) as runs:
        job = {"folder": runs.folder, "scenes": scenes, "batch": args.batch}
        by_side: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(args.repeat):
            for side, results in by_side.items():
                results.append(runs.child("eval_sides.py", {**job, "side": side}))
    rates = {side: median(run["questions"] / run["seconds"] for run in results) for side, results in by_side.items()}
    texts = [results[0]["texts"] for results in by_side.values()]
    result = {
        "speedup": rates["together"] / rates["one by one"],
        "sharing": rates["together"] / rates["apart"],
        "same_text": [sum(len(set(row)) == 1 for row in zip(*texts, strict=True)), len(texts[0])],
        "questions_per_second": rates,
        "settings": {"scenes": scenes, "batch": args.batch, "threads": args.threads, "repeat": args.repeat},
        "versions": versions(),
    }
    report(result, as_json=args.json)


if __name__ == "__main__":
    main()
