"""What one GPU does with 7B shapes in eight minutes: DPO against TRL, BDHS, and a 4-bit base. Random weights, bfloat16.

In this order, each number printed as soon as it is known:

1. LLaVA-NeXT-7B (2,340 image tokens): DPO with LoRA by Sightline and by TRL's DPOTrainer: pairs a second, peak memory
   beside the weights, and the largest difference between the losses of the same step.
2. BDHS on the same model with 64 rows a pass: pairs a second.
3. Qwen2.5-VL-7B (2,000 image tokens): as 1.
4. LLaVA-NeXT-7B with an nf4 base (bitsandbytes): Sightline's pairs a second and memory.

A model is made on the card from its config, and both sides get the open model: no weights are on disk, and opening is
not timed. Sightline's caches start empty. A stage begins only if enough of `--minutes` is left, and a stage that runs
out of it ends after a step and says so. Without TRL or bitsandbytes the parts that need them are left out with a line.
`--tiny` runs all of it on tiny models, on the CPU if there is no GPU. Without a CUDA device it otherwise says so and
ends.
"""

import gc
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common import has_trl, options, report, versions

GIB = 2**30


@dataclass
class Plan:
    """The settings of a run, its folder and its clock; `result` collects the numbers by stage."""

    folder: Path
    device: str
    size: str
    dtype: str
    steps: int
    batch: int
    bdhs_samples: int
    deadline: float
    as_json: bool
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def say(self, stage: str, **numbers: Any) -> None:
        """Print numbers now, and keep them."""
        self.result.setdefault(stage, {}).update(numbers)
        for name, value in numbers.items():
            print(f"{stage:>20} {name}: {f'{value:.4g}' if isinstance(value, float) else value}", flush=True)


def main() -> None:
    """Run the stages in order, as long as there is time."""
    parser = options(__doc__, threads=os.cpu_count())
    parser.add_argument("--minutes", type=float, default=8.0, help="time for everything, start-up included")
    parser.add_argument("--steps", type=int, default=8, help="optimizer steps of each side")
    parser.add_argument("--batch", type=int, default=4, help="pairs per step")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--only", choices=[name for name, _, _ in STAGES], action="append", help="stages to run")
    args = parser.parse_args()
    began = time.monotonic()
    import torch

    torch.set_num_threads(args.threads)
    has_gpu = torch.cuda.is_available()
    if not (has_gpu or args.tiny):
        report({"skipped": "no CUDA device"}, as_json=args.json)
        return
    with tempfile.TemporaryDirectory(prefix="sightline-gpu-", ignore_cleanup_errors=True) as folder:
        os.environ["SIGHTLINE_CACHE"] = f"{folder}/cache"
        plan = Plan(
            folder=Path(folder),
            device="cuda" if has_gpu else "cpu",
            size="tiny" if args.tiny else "7b",
            dtype=args.dtype,
            steps=args.steps,
            batch=args.batch,
            bdhs_samples=4 if args.tiny else 64,
            deadline=began + 60 * args.minutes,
            as_json=args.json,
        )
        name = torch.cuda.get_device_name() if has_gpu else "CPU"
        plan.say("device", name=name, trl=has_trl(), bitsandbytes=find_spec("bitsandbytes") is not None)
        for stage, seconds, run in STAGES:
            if args.only and stage not in args.only:
                continue
            if plan.left < (0 if args.tiny else seconds):
                plan.say(stage, skipped=f"{plan.left:.0f} s are left, it takes about {seconds}")
                continue
            _run(plan, stage, run)
    report({"seconds": time.monotonic() - began, "versions": versions(), **plan.result}, as_json=args.json)


def _run(plan: Plan, stage: str, run: Callable[[Plan, str], None]) -> None:
    """Run one stage; an error is printed and does not cost the later ones."""
    started = time.monotonic()
    try:
        run(plan, stage)
    except Exception as error:  # noqa: BLE001 - the machine is lent for minutes, and the numbers so far count
        traceback.print_exc(file=sys.stderr)
        plan.say(stage, failed=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    plan.say(stage, stage_seconds=time.monotonic() - started)
    _free()


def dpo_llava_next(plan: Plan, stage: str) -> None:
    """DPO of both sides on LLaVA-NeXT."""
    compare(plan, stage, "llava_next")


def dpo_qwen(plan: Plan, stage: str) -> None:
    """DPO of both sides on Qwen2.5-VL."""
    compare(plan, stage, "qwen2_5_vl")


def dpo_nf4(plan: Plan, stage: str) -> None:
    """DPO on LLaVA-NeXT with an nf4 base."""
    if find_spec("bitsandbytes") is None:
        plan.say(stage, skipped="bitsandbytes is not installed")
        return
    from gpu_sides import Side, quantize

    side = Side.make(plan, "llava_next")
    quantize(side.model)
    _free()
    plan.say(stage, weights_gib=side.weights_gib())
    _print_side(plan, stage, "sightline", side.train())


def compare(plan: Plan, stage: str, kind: str) -> None:
    """Sightline, then TRL, on the same open model with the same initial adapter and order of pairs."""
    from gpu_sides import Side

    side = Side.make(plan, kind)
    plan.say(stage, model=f"{kind} {plan.size}", weights_gib=side.weights_gib(), batch=plan.batch)
    ours = side.train()
    _print_side(plan, stage, "sightline", ours)
    _free()
    if not has_trl():
        plan.say(stage, trl="not installed (pip install 'sightline[bench]'): no comparison")
        return
    if plan.left < 30 and plan.size != "tiny":
        plan.say(stage, trl=f"left out, {plan.left:.0f} s are left")
        return
    theirs = side.train_with_trl()
    _print_side(plan, stage, "trl", theirs)
    pairs = list(zip(ours["losses"], theirs["losses"], strict=False))
    plan.say(
        stage,
        speedup=ours["pairs_per_second"] / theirs["pairs_per_second"],
        speedup_later_steps=theirs["later_step_seconds"] / ours["later_step_seconds"],
        compared_steps=len(pairs),
        max_loss_difference=max(abs(one - other) for one, other in pairs),
    )


def bdhs(plan: Plan, stage: str) -> None:
    """BDHS pairs a second, 64 rows a pass."""
    from gpu_sides import Side

    plan.say(stage, **Side.make(plan, "llava_next").build_bdhs())


def _print_side(plan: Plan, stage: str, name: str, found: dict[str, Any]) -> None:
    plan.say(stage, **{f"{name}_{key}": value for key, value in found.items()})


def _free() -> None:
    """Give memory that nothing holds back to the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


#: Name, seconds that it takes at least on a GPU, and function of each stage, in order.
STAGES: tuple[tuple[str, int, Callable[[Plan, str], None]], ...] = (
    ("dpo_llava_next", 60, dpo_llava_next),
    ("bdhs", 45, bdhs),
    ("dpo_qwen2_5_vl", 75, dpo_qwen),
    ("dpo_nf4", 40, dpo_nf4),
)


if __name__ == "__main__":
    main()
