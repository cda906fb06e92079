"""The sides of the training benchmarks, each in a fresh process: prepare, train with Sightline, train with TRL.

`python benchmarks/sides.py REQUEST ANSWER` takes a `common.Job` as JSON. Both sides go from the directories of a model
and of pairs to a saved adapter by the call that their users make, and that call is what is timed: opening the model,
building whatever is kept (Sightline's features and reference log-probs), all steps, saving. Imports are not timed, nor
is `load_dataset` on TRL's side.
"""

import contextlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
import torch
from common import LAB, Job
from flops import Flops
from shapes import save_model, save_pairs

from sightline.builders.bdhs import BDHS, BDHSConfig
from sightline.builders.build import BuildPlan, build_dataset
from sightline.config import load_config
from sightline.data.preference_dataset import PAIRS, read_pairs, write_preference_dataset
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.models.adapters import LoraSettings, add_lora, save_adapter
from sightline.models.loading import load_vlm
from sightline.records import write_rows
from sightline.train.config import TrainConfig
from sightline.train.log import LOG_NAME, read_log
from sightline.train.run import train
from sightline.train.sources import OfflineSource


def make(job: Job) -> dict[str, Any]:
    """Write model, pairs and initial adapter to the job's folder."""
    folder = Path(job.folder)
    if job.kind == "lab":
        _lab_pairs(folder, job)
    else:
        save_model(job.kind, job.size, folder / "model", seed=job.seed, device=job.device, dtype=job.dtype)
        save_pairs(job.kind, job.size, folder / "pairs", job.pairs, job.seed)
    # As `train` opens it: device and dtype have a say in the random numbers of the adapter.
    vlm = load_vlm(_model(job), device=job.device, dtype=job.dtype)
    parameters = vlm.model.num_parameters()
    save_adapter(add_lora(vlm, LoraSettings(job.rank, 2.0 * job.rank), seed=job.seed), folder / "adapter")
    text = vlm.base.config.get_text_config()
    return {
        "parameters": parameters,
        "sizes": [text.hidden_size, text.intermediate_size, text.vocab_size],
        "pairs": len(list(read_pairs(folder / "pairs"))),
    }


def sightline(job: Job) -> dict[str, Any]:
    """Train with Sightline; its config has only the run's numbers."""
    half = job.dtype == "bfloat16"
    config = TrainConfig.model_validate(
        {
            "loss": {"name": "dpo", "beta": job.beta},
            "optim": {"lr": job.lr, "schedule": "constant", "warmup_fraction": 0.0},
            "lora": {"rank": job.rank, "alpha": 2.0 * job.rank},
            "batch_size": job.batch,
            "epochs": job.epochs,
            "checkpoint_every": 10**6,  # TRL saves no checkpoints either
            "device": job.device,
            "dtype": job.dtype,
            "autocast": half,
        }
    )
    out = Path(job.out)
    before = _resident()
    with Flops() if job.count_flops else contextlib.nullcontext() as flops:
        started = time.perf_counter()
        train(Path(_model(job)), Path(job.folder) / "pairs", out, config, job.seed)
        seconds = time.perf_counter() - started
    rows = list(read_log(out / LOG_NAME))
    return {
        "seconds": seconds,
        "losses": [row.loss for row in rows],
        "step_seconds": [row.seconds for row in rows],
        "tokens": [(row.chosen_tokens + row.rejected_tokens) / 2 for row in rows],
        "flops": flops.total if flops else None,
        **_memory(job, before),
    }


def trl(job: Job) -> dict[str, Any]:
    """Train with TRL's DPOTrainer, which loads the model, wraps it in LoRA and collates images by itself."""
    from datasets import load_dataset
    from peft import LoraConfig, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import TrainerCallback
    from trl import DPOTrainer

    class Recorded(DPOTrainer):
        """Keep the loss before the trainer rounds it for its log."""

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.detach())
            return loss

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    losses: list[torch.Tensor] = []
    ends: list[float] = []
    adapter = Path(job.folder) / "adapter"
    lora = LoraConfig.from_pretrained(str(adapter))
    lora.inference_mode = False  # as it is saved, its weights would be frozen
    rows = load_dataset(str(Path(job.folder) / "pairs"), split="train")
    number = {pair_id: index for index, pair_id in enumerate(rows["id"])}
    ordered = rows.select([number[pair_id] for pair_id in _order(job)])
    before = _resident()
    with Flops() if job.count_flops else contextlib.nullcontext() as flops:
        started = time.perf_counter()
        trainer = Recorded(
            model=_model(job),
            args=_dpo_config(job),
            train_dataset=ordered,
            peft_config=lora,
            callbacks=[Clock()],
        )
        seconds = time.perf_counter() - started
        set_peft_model_state_dict(trainer.model, load_file(adapter / "adapter_model.safetensors"))
        started = time.perf_counter()
        trainer.train()
        trainer.save_model()
        seconds += time.perf_counter() - started
    memory = _memory(job, before)
    return {
        "seconds": seconds,
        "losses": [float(loss) for loss in losses],
        "step_seconds": [end - start for start, end in zip([started, *ends], ends, strict=False)],
        "flops": flops.total if flops else None,
        **memory,
    }


def _dpo_config(job: Job) -> Any:
    """TRL's settings for the job: its own defaults but for what decides the numbers."""
    from trl import DPOConfig

    return DPOConfig(
        output_dir=job.out,
        per_device_train_batch_size=job.batch,
        num_train_epochs=1,  # `ordered` has all epochs: the order of each is Sightline's
        train_sampling_strategy="sequential",
        learning_rate=job.lr,
        lr_scheduler_type="constant",
        beta=job.beta,
        bf16=job.dtype == "bfloat16",
        gradient_checkpointing=job.trl_gradient_checkpointing,
        max_length=None,  # 1024 by default, which would cut into the answers of the large models
        model_init_kwargs={"dtype": job.dtype},
        use_cpu=job.device == "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=job.seed,
    )


def _order(job: Job) -> Iterator[str]:
    """The ids of the pairs as Sightline will take them."""
    pairs = list(read_pairs(Path(job.folder) / "pairs"))
    source = OfflineSource(pairs, pairs_per_step=job.batch, seed=job.seed, epochs=job.epochs)
    return (pair.id for pair in chain.from_iterable(source))


def _model(job: Job) -> str:
    return str(LAB / "base") if job.kind == "lab" else str(Path(job.folder) / "model")


def _lab_pairs(folder: Path, job: Job) -> None:
    """Pairs as in the demo; a few extra are built, since some are dropped."""
    samples = write_scenes(ScenesConfig(), "preference", job.pairs * 5 // 4 + 8, folder / "samples")
    config = load_config(BDHSConfig, LAB / "configs" / "bdhs.yaml", ())
    build_dataset(BuildPlan(BDHS, config, job.seed), LAB / "base", samples, folder / "built")
    pairs = list(read_pairs(folder / "built"))[: job.pairs]
    pairs = pairs[: len(pairs) // job.batch * job.batch]  # whole steps, or the two sides' epochs would diverge
    (folder / "pairs").mkdir()
    shutil.copytree(folder / "built" / "images", folder / "pairs" / "images")
    write_rows(folder / "pairs" / PAIRS, pairs)
    write_preference_dataset(folder / "pairs")


def _resident() -> int:
    """Bytes in memory once everything is imported and before the model is opened."""
    return int(psutil.Process().memory_info().rss)


def _memory(job: Job, before: int) -> dict[str, int]:
    """The peak, and what of it lies before and beside the weights: `peak - base - weights` is the cost of training."""
    if job.device == "cuda":
        return {"peak_bytes": torch.cuda.max_memory_allocated(), "base_bytes": 0}
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "base_bytes": before}


if __name__ == "__main__":
    request, answer = map(Path, sys.argv[1:])
    requested = Job(**json.loads(request.read_text()))
    answer.write_text(json.dumps({"make": make, "sightline": sightline, "trl": trl}[requested.side](requested)))
