"""The sides of `gpu_step.py`, in one process on one open model: training by Sightline and TRL, and BDHS."""

import shutil
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from shapes import build_model, save_pairs

from sightline.builders.bdhs import BDHSConfig, build_bdhs
from sightline.data.preference_dataset import read_pairs
from sightline.losses.objective import Term, make_objective
from sightline.models.adapters import LoraSettings, add_lora
from sightline.models.attention import use_layouts
from sightline.models.context import RunContext
from sightline.models.families import FAMILIES
from sightline.models.requests import make_prefix
from sightline.models.tensor_cache import open_cache
from sightline.models.vlm import VLM
from sightline.models.ways.packed import PackedWay
from sightline.records import Pair, Sample
from sightline.train.config import OptimizerConfig
from sightline.train.loop import StepSettings, TrainState, fit
from sightline.train.optimizer import make_optimizer
from sightline.train.pair_filter import resolve_images
from sightline.train.preference import PreferenceTask
from sightline.train.reference_cache import Reference
from sightline.train.sources import OfflineSource

if TYPE_CHECKING:
    from gpu_step import Plan

RANK, BETA, RATE, SEED = 16, 0.1, 1e-4, 0
GIB = 2**30


@dataclass
class Side:
    """An open model with pairs, on which both sides run."""

    plan: "Plan"
    kind: str
    model: Any
    processor: Any
    pairs: list[Pair]
    initial: dict[str, torch.Tensor]

    @staticmethod
    def make(plan: "Plan", kind: str) -> "Side":
        """Make the model on the device, and pairs for it."""
        folder = plan.folder / kind
        if not folder.exists():
            save_pairs(kind, plan.size, folder / "pairs", plan.steps * plan.batch, SEED)
        model, processor = build_model(kind, plan.size, seed=SEED, device=plan.device, dtype=plan.dtype)
        pairs = [resolve_images(pair, folder / "pairs") for pair in read_pairs(folder / "pairs")]
        return Side(plan, kind, model.eval().requires_grad_(False), processor, pairs, {})

    def weights_gib(self) -> float:
        """The size of the weights."""
        return sum(weight.nbytes for weight in self.model.parameters()) / GIB

    def vlm(self) -> VLM:
        """The open model as Sightline sees it; its processor and config are also on disk."""
        use_layouts(self.model)
        directory = self.plan.folder / self.kind / "model"
        self.processor.save_pretrained(directory)
        self.model.config.save_pretrained(directory)
        device, dtype = torch.device(self.plan.device), getattr(torch, self.plan.dtype)
        family = FAMILIES[self.model.config.model_type]
        return VLM(self.model, self.processor, str(directory), device, dtype, PackedWay(), family, cache=open_cache())

    def train(self) -> dict[str, Any]:
        """DPO by Sightline, from empty caches."""
        shutil.rmtree(self.plan.folder / "cache", ignore_errors=True)
        vlm = add_lora(self.vlm(), LoraSettings(RANK, 2.0 * RANK), seed=SEED)
        self.initial = {name: w.detach().clone() for name, w in vlm.model.named_parameters() if w.requires_grad}
        half = self.plan.dtype == "bfloat16" and self.plan.device == "cuda"
        reference = Reference(vlm, autocast=half, keep=True)
        objective = make_objective([Term("dpo", parameters={"beta": BETA})])
        state = TrainState(
            vlm=vlm,
            optimizer=make_optimizer(vlm.model.named_parameters(), OptimizerConfig(lr=RATE)),
            source=OfflineSource(self.pairs, pairs_per_step=self.plan.batch, seed=SEED, epochs=1),
            task=PreferenceTask(vlm, objective, reference, autocast=half),
            prefix=lambda pair: make_prefix(pair, Path()),
        )
        settings = StepSettings(self.plan.batch, schedule=lambda _: 1.0, clip_norm=1.0, seed=SEED)
        losses: list[float] = []
        ends = [self._start()]
        for record in fit(state, settings):
            losses.append(record.loss)
            ends.append(self._now())
            if self.plan.left < 0:
                break
        result = self._numbers(losses, ends)
        del state, reference
        vlm.model.unload()
        return result

    def train_with_trl(self) -> dict[str, Any]:
        """DPO by TRL's DPOTrainer: its own defaults but for what decides the numbers (see `sides.py`)."""
        from datasets import load_dataset
        from peft import LoraConfig
        from transformers import TrainerCallback
        from trl import DPOTrainer

        self.model.set_attn_implementation("sdpa")
        plan, losses, ends = self.plan, list[torch.Tensor](), list[float]()

        class Recorded(DPOTrainer):
            """Keeps the losses that the trainer rounds for its log."""

            def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
                loss = super().compute_loss(*args, **kwargs)
                losses.append(loss.detach())
                return loss

        class Clock(TrainerCallback):
            """Notes the end of each step, and stops when the time is over."""

            def on_step_end(_, __: Any, ___: Any, control: Any, **____: Any) -> None:
                ends.append(self._now())
                control.should_training_stop = control.should_training_stop or plan.left < 0

        rows = load_dataset(str(plan.folder / self.kind / "pairs"), split="train")
        number = {name: index for index, name in enumerate(rows["id"])}
        order = [
            pair for step in OfflineSource(self.pairs, pairs_per_step=plan.batch, seed=SEED, epochs=1) for pair in step
        ]
        # The layers of the language model that Sightline's adapter has.
        names = sorted({name.split("model.", 1)[1].partition(".lora_")[0] for name in self.initial})
        trainer = Recorded(
            model=self.model,
            processing_class=self.processor,
            args=_dpo_config(plan),
            train_dataset=rows.select([number[pair.id] for pair in order]),
            peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=names, task_type="CAUSAL_LM"),
            callbacks=[Clock()],
        )
        with torch.no_grad():
            for name, weight in trainer.model.named_parameters():
                if name in self.initial:
                    weight.copy_(self.initial[name])
        ends.append(self._start())
        trainer.train()
        result = self._numbers([float(loss) for loss in losses], ends)
        trainer.model.unload()
        return result

    def build_bdhs(self) -> dict[str, Any]:
        """BDHS by Sightline's builder, from empty caches, until the time is over."""
        shutil.rmtree(self.plan.folder / "cache", ignore_errors=True)
        tiny = self.plan.size == "tiny"
        config = BDHSConfig(rho=0.99, tries=2, max_new_tokens=8 if tiny else 40, batch_size=64, wave=32)
        samples = [
            Sample(id=f"{number:04d}", images=pair.images, prompt=pair.prompt, reference=pair.chosen)
            for number, pair in enumerate((self.pairs * 64)[: self.plan.bdhs_samples])
        ]
        context = RunContext(Path(), self.plan.folder / "scratch", SEED, policy=self.vlm())
        began, done, tokens = self._start(), 0, 0.0
        for result in build_bdhs(samples, context, config):
            done += 1
            tokens += result.tallies.get("generated_tokens", 0.0)
            if self.plan.left < 0:
                break
        seconds = self._now() - began
        return {
            "pairs_per_second": done / seconds,
            "tokens_per_second": tokens / seconds,
            "pairs": done,
            "rows_a_pass": config.batch_size,
            "peak_beside_weights_gib": self._peak(),
        }

    def _start(self) -> float:
        if self.plan.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        return self._now()

    def _now(self) -> float:
        if self.plan.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _peak(self) -> float | None:
        """The peak of memory beside the weights; None on a CPU."""
        if self.plan.device != "cuda":
            return None
        return torch.cuda.max_memory_allocated() / GIB - self.weights_gib()

    def _numbers(self, losses: list[float], ends: list[float]) -> dict[str, Any]:
        steps = [end - start for start, end in pairwise(ends)]
        return {
            "pairs_per_second": len(steps) * self.plan.batch / (ends[-1] - ends[0]),
            "later_step_seconds": median(steps[1:] or steps),
            "steps": len(steps),
            "peak_beside_weights_gib": self._peak(),
            "losses": losses,
        }


def _dpo_config(plan: "Plan") -> Any:
    from trl import DPOConfig

    return DPOConfig(
        output_dir=str(plan.folder / "trl"),
        per_device_train_batch_size=plan.batch,
        num_train_epochs=1,
        train_sampling_strategy="sequential",
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        beta=BETA,
        bf16=plan.dtype == "bfloat16" and plan.device == "cuda",
        max_length=None,
        use_cpu=plan.device == "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=SEED,
    )


def quantize(model: Any) -> None:
    """Replace the linear layers of the language model by nf4 ones, in place."""
    import bitsandbytes as bnb

    decoder = model.get_decoder()
    for name, module in list(decoder.named_modules()):
        if type(module) is not torch.nn.Linear:
            continue
        weight = module.weight
        packed = bnb.nn.Linear4bit(
            module.in_features,
            module.out_features,
            bias=module.bias is not None,
            compute_dtype=weight.dtype,
            quant_type="nf4",
            device="meta",
        )
        packed.weight = bnb.nn.Params4bit(weight.data.cpu(), requires_grad=False, quant_type="nf4").to(weight.device)
        packed.bias = module.bias
        parent, _, last = name.rpartition(".")
        setattr(decoder.get_submodule(parent), last, packed)
