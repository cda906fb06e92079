"""Image features: bitwise independent of batch and cache, and equal to a pass over one image."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sightline.models import features
from sightline.models.encoding import EncodedImages, encode_prefix
from sightline.models.features import TOGETHER, image_features
from sightline.models.requests import Prefix
from sightline.models.tensor_cache import TensorCache
from sightline.models.vlm import VLM
from tests.models.tiny import IMAGE_TOKENS, save_pictures


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_pictures(tmp_path_factory.mktemp("photos"), count=6)


def images_of(vlm: VLM, *paths: Path) -> EncodedImages:
    return encode_prefix(vlm, Prefix(paths, "Describe.")).images


def tokens(vlm: VLM, *images: EncodedImages) -> list[Tensor]:
    features = [each["tokens"] for each in image_features(vlm, images) if each is not None]
    assert len(features) == len(images)
    return features


def test_the_bits_do_not_depend_on_the_batch(vlm: VLM, photos: list[Path]) -> None:
    singles = [images_of(vlm, photo) for photo in photos]
    two = images_of(vlm, photos[4], photos[1])
    alone = [tokens(vlm, one)[0] for one in singles]
    together = tokens(vlm, *singles, two)
    backwards = tokens(vlm, two, *singles[::-1])
    for one, other, third in zip(alone, together, backwards[:0:-1], strict=False):
        assert torch.equal(one, other)
        assert torch.equal(one, third)
    assert torch.equal(together[-1], torch.cat([alone[4], alone[1]]))
    assert torch.equal(backwards[0], together[-1])


def test_they_are_those_of_a_pass_over_one_picture(
    vlm: VLM, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    singles = [images_of(vlm, photo) for photo in photos]
    passes: list[int] = []
    plain: Callable[..., dict[str, Tensor]] = vlm.family.features

    def counted(base: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        passes.append(len(tensors["pixel_values"]))
        return plain(base, tensors)

    monkeypatch.setattr(type(vlm.family), "features", lambda _, base, tensors: counted(base, tensors))
    computed = tokens(vlm, *singles)
    assert passes == [TOGETHER, TOGETHER]  # six pictures and two copies
    with torch.no_grad():
        for one, found in zip(singles, computed, strict=True):
            expected = plain(vlm.base, {"pixel_values": one.tensors["pixel_values"]})["tokens"]
            assert found.shape == (IMAGE_TOKENS, vlm.base.config.get_text_config().hidden_size)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    passes.clear()
    monkeypatch.setattr(features, "SMALL", IMAGE_TOKENS - 1)  # now they are large ones
    assert len(tokens(vlm, *singles)) == len(passes) == 6


def test_warm_and_cold_give_the_same_bits(vlm: VLM, photos: list[Path], tmp_path: Path) -> None:
    kept = replace(vlm, cache=TensorCache(tmp_path, max_bytes=10**7))
    singles = [images_of(vlm, photo) for photo in photos]
    cold = tokens(kept, *singles[:2])
    rest = tokens(kept, *singles)  # two of them from the cache
    assert kept.cache is not None and (kept.cache.hits, kept.cache.misses) == (2, 6)
    warm = tokens(kept, *singles)
    assert kept.cache.hits == 8
    for one, other in zip([*cold, *rest, *rest], [*rest[:2], *warm, *tokens(vlm, *singles)], strict=True):
        assert torch.equal(one, other)
