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
from sightline.models.tensor_cache import TensorCache, WriteCosts
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


def test_memory_comes_before_the_disk_and_gives_the_same(vlm: VLM, photos: list[Path], tmp_path: Path) -> None:
    kept = replace(vlm, cache=TensorCache(tmp_path, max_bytes=10**7))
    singles = [images_of(vlm, photo) for photo in photos]
    cold = tokens(kept, *singles)
    for file in tmp_path.rglob("*.safetensors"):
        file.unlink()
    assert all(map(torch.equal, tokens(kept, *singles), cold))
    assert kept.cache is not None and (kept.cache.hits, kept.cache.misses) == (6, 6)
    changed = replace(vlm, cache=kept.cache)
    for weight in changed.base.model.multi_modal_projector.parameters():
        weight.data = weight.data + 1
    vlm.base._sightline_vision_key = None  # as in a model that is opened
    assert not torch.equal(tokens(changed, singles[0])[0], cold[0])


def test_of_hidden_tokens_only_the_others_are_kept(vlm: VLM, photos: list[Path], tmp_path: Path) -> None:
    kept = replace(vlm, cache=TensorCache(tmp_path, max_bytes=10**7))
    one, other = images_of(vlm, photos[0]), images_of(vlm, photos[1])
    few = torch.arange(IMAGE_TOKENS) % 4 == 0
    most = ~few
    (whole,), (second,) = tokens(vlm, one), tokens(vlm, other)
    for _ in range(2):  # computed, then from memory
        found = image_features(kept, [one, other, one, other], [few, most, few, None])
        expected = [whole[few], second[most], whole[few], second]
        assert all(torch.equal((each or {})["tokens"], value) for each, value in zip(found, expected, strict=True))
    held = [value["tokens"] for value, _ in kept.features._values.values()]
    assert sorted(map(len, held)) == [int(few.sum()), IMAGE_TOKENS]
    assert kept.cache is not None and kept.cache.hits == 2  # pictures, not rows
    (new,) = image_features(kept, [one], [most])
    assert torch.equal((new or {})["tokens"], whole[most])  # another choice, from the disk


def test_where_writing_takes_longer_the_disk_is_left_alone(
    vlm: VLM, photos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SMALL", 0)  # they are large ones
    cache = TensorCache(tmp_path, max_bytes=10**7)
    kept = replace(vlm, cache=cache)
    singles = [images_of(vlm, photo) for photo in photos]
    found = [tokens(kept, one)[0] for one in singles[:2]]
    assert (len(cache.costs._computed), len(cache.costs._written)) == (2, 2)  # both were measured
    cache.costs._computed[:], cache.costs._written[:] = [9.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0]
    found += [tokens(kept, one)[0] for one in singles[2:]]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
    assert all(map(torch.equal, found, tokens(vlm, *singles)))
    vlm.features.__init__()  # type: ignore[misc]
    assert torch.equal(tokens(kept, singles[0])[0], found[0])
    assert (cache.hits, cache.misses) == (0, 7)


def test_costs_decide_after_a_few_measurements() -> None:
    device = torch.device("cpu")
    for computed, written, pays in ((1.0, 2.0, False), (2.0, 1.0, True), (0.001, 0.019, True)):
        costs = WriteCosts()
        for _ in range(WriteCosts.MEASURED):
            assert costs.pays
            costs._computed.append(computed)
            costs._written.append(written)
        costs._computed[:1] = [50.0, computed]  # the first one warms up
        assert costs.pays is pays
    with costs.computing(device), costs.writing():
        pass
    assert len(costs._computed) == WriteCosts.MEASURED + 1


def test_features_have_the_dtype_of_the_model(vlm: VLM, photos: list[Path], tmp_path: Path) -> None:
    halved = replace(vlm, model=vlm.model.to(torch.bfloat16), dtype=torch.bfloat16)
    kept = replace(halved, cache=TensorCache(tmp_path, max_bytes=10**7))
    (found,) = tokens(kept, images_of(vlm, photos[0]))
    assert found.dtype == torch.bfloat16
    (file,) = tmp_path.rglob("*.safetensors")
    assert file.stat().st_size < found.numel() * 2 + 200
