"""Models of the zoo, and rows for them."""

import inspect
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from sightline.models.encoding import EncodedImages, EncodedPrefix
from sightline.models.families import FAMILIES, ModelFamily
from sightline.models.packing import PackRow
from sightline.models.proof import Proof, ProofRows, prove
from sightline.models.vlm import VLM
from sightline.models.ways.row_by_row import RowByRowWay
from tests.models.families.weights import redraw
from tests.models.zoo import ZOO, tiny_config

ANSWERS = ((50, 51, 52, 2), (60, 2), (70, 71, 72, 73, 74, 75, 2), (80, 81, 82, 2))


def build(name: str) -> VLM:
    """A tiny random model of a type, with nothing registered."""
    torch.manual_seed(0)
    model: Any = AutoModelForImageTextToText.from_config(tiny_config(name))  # type: ignore[no-untyped-call]
    redraw(model, 0)
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            if "gate" in weight_name and weight.ndim == 1 and len(weight) == 1:
                weight.fill_(0.7)  # gates of cross-attention begin closed
    processor = SimpleNamespace(tokenizer=SimpleNamespace(eos_token_id=2), chat_template="")
    kind = ZOO[name].model_type or name
    family = FAMILIES[kind] if kind in FAMILIES else ModelFamily()
    model = model.float().eval().requires_grad_(False)
    return VLM(model, processor, name, torch.device("cpu"), torch.float32, RowByRowWay(), family)


def count_features(vlm: VLM, tensors: dict[str, Tensor]) -> int:
    """The number of image tokens that pictures need."""
    encode = getattr(vlm.base, "model", vlm.base)
    encode = getattr(encode, "get_image_features", None) or vlm.base.get_image_features
    known = inspect.signature(encode).parameters
    with torch.no_grad():
        output = encode(**{key: value for key, value in tensors.items() if key in known}, return_dict=True)
    features = getattr(output, "pooler_output", None)
    features = output.last_hidden_state if features is None else features
    parts = list(features) if isinstance(features, list | tuple) else [features]
    return sum(part.numel() // part.shape[-1] for part in parts)


def prefix_of(vlm: VLM, name: str, pictures: int, number: int, *, gray: bool = False) -> EncodedPrefix:
    """A prefix with some pictures before its prompt."""
    spec, counts = ZOO[name], list[int]()
    tensors = spec.images(pictures) if pictures else {}
    for done in range(pictures):
        before = sum(counts)
        counts.append(spec.tokens or count_features(vlm, spec.images(done + 1)) - before)
    ids = [5, 6]
    for count in counts:
        ids += [11, *[vlm.image_token_id] * count, 12]
    ids += [30 + number, 41, 42, 43, 44]
    is_image = torch.tensor(ids) == vlm.image_token_id
    if gray:
        pixels = [key for key in tensors if key.startswith("pixel_values")]
        tensors |= {key: torch.full_like(tensors[key], 0.5) for key in pixels}
    if vlm.base.config.model_type == "mllama" and pictures:
        # Tokens before the picture do not see it.
        seen = is_image.cumsum(0) > 0
        tensors["cross_attention_mask"] = seen.long()[None, :, None, None]
    names = {
        key
        for one in (vlm.base, getattr(vlm.base, "model", vlm.base))
        for key in inspect.signature(one.forward).parameters
    }
    types = {"mm_token_type_ids": is_image.int()[None]} if spec.types and "mm_token_type_ids" in names else {}
    paths = tuple(Path(f"{number}-{place}{'-gray' * gray}") for place in range(pictures))
    return EncodedPrefix(tuple(ids), "", tuple(ids), "", "", EncodedImages(paths, tensors), types)


def proof_rows(vlm: VLM, name: str) -> ProofRows:
    """Rows for a proof."""
    first, gray = (prefix_of(vlm, name, 1, 0, gray=gray) for gray in (False, True))
    second = prefix_of(vlm, name, pictures_at_once(name), 1)
    return ProofRows(
        (PackRow(first, ANSWERS[:2]), PackRow(second, ANSWERS[2:])),
        PackRow(gray, ANSWERS[:2]),
    )


def pictures_at_once(name: str) -> int:
    """The number of pictures of the second row."""
    return 1 if name == "mllama" else 2


def rows_of(vlm: VLM, name: str) -> list[PackRow]:
    """One picture with four answers, two with two, none with three."""
    pictures = (1, pictures_at_once(name), 0)
    prefixes = [prefix_of(vlm, name, count, number) for number, count in enumerate(pictures)]
    counts = (4, 2, 3) if name != "mllama" else (4, 2)
    return [PackRow(prefix, ANSWERS[:count]) for prefix, count in zip(prefixes, counts, strict=False)]


def proved(name: str) -> tuple[VLM, VLM, Proof]:
    """A model as it is, another one with the way that its proof chose, and the proof."""
    vlm = build(name)
    proof = prove(vlm, proof_rows(vlm, name))
    return build(name), replace(vlm, way=proof.open(vlm.base), proof=proof), proof
