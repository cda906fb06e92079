"""The sides of `bdhs.py`, each in a fresh process: lab samples, Sightline's builder, or a plain Transformers loop.

The loop is what a careful user writes with `generate` alone: sample by sample, try by try, sentence by
sentence, one call each, the image tokens hidden by zeros in the attention mask and the positions given by hand so that
hiding moves no token. Which tokens to hide, where to cut and what counts as similar are text and arithmetic and are
taken from Sightline, so that both sides do the same work.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import datasets  # noqa: F401  # the builder imports it when writing; do not measure that second
import numpy as np
import torch
from common import LAB
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from sightline.builders.bdhs import BDHS, BDHSConfig, cut_sentence, draw_hidden_tokens
from sightline.builders.build import BuildPlan, build_dataset
from sightline.builders.similarity import make_similarity
from sightline.config import load_config
from sightline.data.samples import read_samples
from sightline.data.texts import split_sentences
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.models.device import SLOW
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.sampler import generate
from sightline.records import Sample

MODEL = LAB / "base"


def make(folder: Path, count: int, **_: Any) -> dict[str, Any]:
    """Write the samples."""
    write_scenes(ScenesConfig(), "preference", count, folder / "samples")
    return {}


def sightline(folder: Path, out: Path, config: BDHSConfig, seed: int, **_: Any) -> dict[str, Any]:
    """The builder, from opening the model to the finished dataset."""
    started = time.perf_counter()
    manifest = build_dataset(BuildPlan(BDHS, config, seed), MODEL, folder / "samples", out)
    seconds = time.perf_counter() - started
    again = (manifest.numbers[f"share_similar_after_try_{number}"] for number in range(1, config.tries))
    return {"seconds": seconds, "samples": manifest.counts["samples"], "tries": 1 + sum(again)}


def loop(folder: Path, count: int, config: BDHSConfig, seed: int, **_: Any) -> dict[str, Any]:
    """The loop, from opening the model to the last answer; nothing is written."""
    samples = list(read_samples(folder / "samples"))[:count]
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    started = time.perf_counter()
    writer = Writer(config)
    tries = sum(writer.rejected(sample, folder / "samples", rng)[1] for sample in samples)
    return {"seconds": time.perf_counter() - started, "samples": len(samples), "tries": tries / len(samples)}


class Writer:
    """Writes rejected answers with the model."""

    def __init__(self, config: BDHSConfig) -> None:
        self.processor = AutoProcessor.from_pretrained(MODEL)
        self.model = AutoModelForImageTextToText.from_pretrained(MODEL, dtype=torch.float32).eval()
        self.config = config
        # As Sightline, turn bfloat16 off where it is slower.
        self.autocast = config.autocast and torch.backends.cpu.get_cpu_capability() not in SLOW
        self._similarity = make_similarity(config.similarity)

    def rejected(self, sample: Sample, folder: Path, rng: np.random.Generator) -> tuple[str, int]:
        """The rejected answer, and the number of tries it took."""
        reference = (sample.reference or "").strip()
        picture = Image.open(folder / sample.images[0]).convert("RGB")
        sentences = split_sentences(reference)
        for number in range(1, self.config.tries + 1):
            hidden = draw_hidden_tokens(rng, self.image_tokens(sample.prompt, picture), self.config.rho)
            if number == self.config.tries:
                return self.go_on(sample.prompt, picture, "", hidden, None, sample=True), number
            parts = []
            for place, sentence in enumerate(sentences):
                kept = cut_sentence(rng, sentence)
                prefill = "".join([*sentences[:place], kept])
                parts.append(kept + self.go_on(sample.prompt, picture, prefill, hidden, ".", sample=True))
            answer = "".join(part.rstrip() for part in parts).strip()
            if self._similarity([answer], [reference])[0] < self.config.threshold:
                break
        return answer, number

    def image_tokens(self, prompt: str, picture: Image.Image) -> int:
        """The number of tokens that can be hidden."""
        return int((self._inputs(prompt, picture, "")["input_ids"] == self.processor.image_token_id).sum())

    @torch.no_grad()
    def go_on(
        self, prompt: str, picture: Image.Image, prefill: str, hidden: frozenset[int], stop: str | None, *, sample: bool
    ) -> str:
        """Continue the answer that begins with `prefill`, up to the first `stop` or the end of the turn."""
        inputs = self._inputs(prompt, picture, prefill.rstrip())
        ids = inputs["input_ids"]
        visible = torch.ones_like(ids)
        places = (ids[0] == self.processor.image_token_id).nonzero()[:, 0]
        visible[0, places[sorted(hidden)]] = 0
        inputs["attention_mask"] = visible
        inputs["position_ids"] = torch.arange(ids.shape[1])[None]
        choice = {"temperature": self.config.temperature, "top_p": self.config.top_p, "top_k": 0} if sample else {}
        stopping = {"stop_strings": [stop], "tokenizer": self.processor.tokenizer} if stop else {}
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            output = self.model.generate(
                **inputs, do_sample=sample, max_new_tokens=self.config.max_new_tokens, **choice, **stopping
            )
        known = len(self._text(ids[0]))
        text = self._text(output[0])[known:] if prefill else self._text(output[0])[known:].lstrip()
        if stop and stop in text:
            text = text[: text.index(stop) + 1]
        return text.removeprefix(prefill[len(prefill.rstrip()) :])

    def _inputs(self, prompt: str, picture: Image.Image, prefill: str) -> dict[str, Any]:
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        whole = f"{text} {prefill}" if prefill else text
        return dict(self.processor(text=whole, images=picture, add_special_tokens=False, return_tensors="pt"))

    def _text(self, ids: torch.Tensor) -> str:
        decoded: str = self.processor.tokenizer.decode(ids, skip_special_tokens=True)
        return decoded


def agree(folder: Path, count: int, config: BDHSConfig, seed: int, **_: Any) -> dict[str, Any]:
    """Count identical greedy float32 continuations of the two sides, which hide the same tokens."""
    exact = config.model_copy(update={"autocast": False, "max_new_tokens": 40})
    writer, vlm, rng = Writer(exact), load_vlm(MODEL), np.random.default_rng(seed)
    requests, texts = [], []
    for sample in list(read_samples(folder / "samples"))[:count]:
        path = folder / "samples" / sample.images[0]
        picture = Image.open(path).convert("RGB")
        hidden = draw_hidden_tokens(rng, writer.image_tokens(sample.prompt, picture), exact.rho)
        prefill = cut_sentence(rng, split_sentences((sample.reference or "").strip())[0])
        texts.append(writer.go_on(sample.prompt, picture, prefill, hidden, ".", sample=False))
        requests.append(GenerateRequest(Prefix((path,), sample.prompt), prefill, hidden))
    sampling = Sampling(exact.max_new_tokens, stop=(".",))
    ours = [generation.text for generation in generate(vlm, requests, sampling, batch_size=16)]
    return {"same": sum(a == b for a, b in zip(ours, texts, strict=True)), "of": len(texts)}


if __name__ == "__main__":
    request, answer = map(Path, sys.argv[1:])
    job = json.loads(request.read_text())
    side = {"make": make, "sightline": sightline, "transformers": loop, "agree": agree}[job.pop("side")]
    paths = {key: Path(job.pop(key)) for key in ("folder", "out")}
    settings = load_config(BDHSConfig, LAB / "configs" / "bdhs.yaml", ())
    answer.write_text(json.dumps(side(config=settings, **paths, **job)))
