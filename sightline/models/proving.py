"""The proof of an opened model (`models.proof`) with rows of its own processor, kept by content.

A proof is of a structure and not of weights: its key has the config, the source of the model's class, the versions of
the packages, this package's code, the kind of device, the number format, and the processor's class.
"""

import functools
import inspect
import logging
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import transformers
from PIL import Image

import sightline.models
from sightline.errors import InputError
from sightline.models.attention import use_layouts
from sightline.models.proof import Proof, ProofRows, prove, prove_listed
from sightline.models.requests import Prefix, ScoreRequest
from sightline.models.scorer import encode_row
from sightline.models.soundness import first_line
from sightline.models.tensor_cache import ByteLRU
from sightline.models.vlm import VLM
from sightline.models.ways.base import Way
from sightline.models.ways.packed import PackedWay
from sightline.models.ways.row_by_row import RowByRowWay
from sightline.records.hashing import hash_file, hash_json
from sightline.records.store import cache_directory, read_json, write_json

log = logging.getLogger(__name__)
#: Width and height (pixels) of the noise pictures, and the gray value of the third one.
FORMS, GRAY = ((64, 64), (96, 48)), 128
PROMPT, ANSWERS = "What is it?", (("No.", "Yes, a red cup."), ("A blue plate is on it.", "No."))


def with_way(vlm: VLM, *, listed: bool) -> VLM:
    """The model with the way that its proof chooses; its attention must still be Transformers' own.

    A model that cannot be proved, such as one whose log-probs are NaN, is computed by its listed family's adapter, or
    one row at a time.
    """
    kind = vlm.base.config.model_type
    try:
        proof = _kept(vlm, listed) or _new(vlm, listed)
    except Exception as error:
        way_in_words = "computed in packed rows" if listed else "computed one row at a time, which is slow"
        log.warning("%s: a %r model, not proved (%s); %s", vlm.path, kind, first_line(error), way_in_words)
        log.debug("the error was", exc_info=True)
        return without_proof(vlm, listed=listed)
    way = proof.open(vlm.base)
    expected = listed and way.name == "packed"
    log.log(
        logging.INFO if expected or way.name == "recorded" else logging.WARNING,
        "%s: a %r model, computed %s",
        vlm.path,
        kind,
        proof.sentence(),
    )
    return replace(vlm, way=way, proof=proof)


def without_proof(vlm: VLM, *, listed: bool) -> VLM:
    """The model with its listed family's way, or one row at a time; for models whose weights are not there yet."""
    way: Way = PackedWay() if listed else RowByRowWay()
    if listed:
        use_layouts(vlm.base)
    return replace(vlm, way=way)


def _new(vlm: VLM, listed: bool) -> Proof:
    """Prove the model and keep the proof."""
    tried, proof = replace(vlm, cache=None, prefixes=ByteLRU()), None
    with tempfile.TemporaryDirectory() as folder:
        pictures = _pictures(Path(folder)) if vlm.is_multimodal else []
        if listed:
            images = tuple(pictures[:1])
            proof = prove_listed(tried, encode_row(tried, ScoreRequest(Prefix(images, PROMPT), ANSWERS[0])))
        proof = proof or prove(tried, _rows(tried, pictures))
    path = _path(vlm, listed)
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, asdict(proof))
        except OSError as error:  # a full or read-only disk costs the next opening a second
            log.debug("the proof is not kept: %s", error)
    return proof


def _kept(vlm: VLM, listed: bool) -> Proof | None:
    path = _path(vlm, listed)
    if path is None or not path.is_file():
        return None
    try:
        return Proof(**read_json(path))
    except (InputError, TypeError):  # a damaged file, or one of another version
        return None


def _path(vlm: VLM, listed: bool) -> Path | None:
    try:
        folder = cache_directory() / "proofs"
    except RuntimeError:  # no home directory
        return None
    config = vlm.base.config
    key = hash_json(
        {
            "config": config.to_json_string(use_diff=False),
            "model": _file_hash(inspect.getfile(type(vlm.base))),
            "family": _file_hash(inspect.getfile(type(vlm.family))) if listed else "",
            "versions": [each.__version__ for each in (transformers, torch, peft)],
            "code": _code_hash(),
            "device": vlm.device.type,
            "dtype": str(vlm.dtype),
            "processor": type(vlm.processor).__name__,
        }
    )
    return folder / f"{key}.json"


@functools.cache
def _file_hash(path: str) -> str:
    return hash_file(Path(path))


@functools.cache
def _code_hash() -> str:
    """The content hash of this room's code."""
    folder = Path(inspect.getfile(sightline.models)).parent
    return hash_json({str(file.relative_to(folder)): hash_file(file) for file in sorted(folder.rglob("*.py"))})


def _rows(vlm: VLM, pictures: list[Path]) -> ProofRows:
    """The rows of a proof: a prompt with two answers each, about two noise pictures of different forms."""
    if not pictures:
        rows = tuple(encode_row(vlm, ScoreRequest(Prefix((), PROMPT), answers)) for answers in ANSWERS)
        return ProofRows(rows, None)
    first, second, gray = (
        encode_row(vlm, ScoreRequest(Prefix((path,), PROMPT), answers))
        for path, answers in zip(pictures, (*ANSWERS, ANSWERS[0]), strict=True)
    )
    return ProofRows((first, second), gray)


def _pictures(folder: Path) -> list[Path]:
    """Two noise pictures, and a gray one of the form of the first."""
    generator = np.random.default_rng(7)
    noise: list[Any] = [generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in FORMS]
    gray: Any = np.full_like(noise[0], GRAY)
    return [_save(pixels, folder / f"{number}.png") for number, pixels in enumerate((*noise, gray))]


def _save(pixels: Any, path: Path) -> Path:
    Image.fromarray(pixels).save(path)
    return path
