"""Image corruptions: the noise schedule against sums by hand, effects on pixels, and files."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.builders.image_corruptions import CORRUPTIONS, STEPS, corrupt_image, get_corruption, kept_signal
from sightline.errors import InputError
from sightline.models.vlm import VLM
from tests.builders.builders import make_context


def pixels(image: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(image, np.float64) / 255


def a_picture(width: int = 60, height: int = 40) -> Image.Image:
    """Left red and green, right blue, with a dark box, so that every turn shows."""
    image = Image.new("RGB", (width, height), (200, 30, 30))
    image.paste((30, 160, 60), (0, height // 2, width // 2, height))
    image.paste((20, 20, 180), (width // 2, 0, width, height))
    image.paste((10, 10, 10), (4, 4, 12, 9))
    return image


# --- the schedule of noise (arXiv 2407.02477, eq. 8 and 9) ------------------------------------------------------------


def test_the_signal_that_is_left_by_a_plain_loop() -> None:
    left = 1.0
    assert kept_signal(0) == 1.0
    for k in range(1, STEPS + 1):
        beta = 1 / (1 + math.exp(-(-6 + 12 * k / 1000))) * (0.5e-2 - 1e-5) + 1e-5
        left *= 1 - beta
        assert kept_signal(k) == pytest.approx(left, rel=1e-12)


def test_golden_values() -> None:
    """By hand: the integral of the sigmoid gives 4.99e-3 * (1000 / 12) * (ln 2 - ln(1 + e^-6)) + 0.005 = 0.2922; the
    right ends of 500 steps add half of beta_500, 0.0013, and -ln(1 - b) - b = b^2 / 2 adds 0.0002: exp(-0.2937).
    """
    assert kept_signal(500) == pytest.approx(0.7455359710550751, rel=1e-12)
    assert kept_signal(500) == pytest.approx(math.exp(-0.2937), abs=1e-4)
    assert kept_signal(1000) == pytest.approx(math.exp(-2.505 - 0.0025 - 0.0052), abs=1e-4)
    assert all(kept_signal(k) > kept_signal(k + 1) for k in range(0, STEPS, 50))


@pytest.mark.parametrize("steps", [1, 100, 500])
def test_noise_has_the_mean_and_the_spread_of_equation_9(steps: int) -> None:
    """On mid-gray little is clipped: the mean is sqrt(abar) / 2, the deviation sqrt(1 - abar)."""
    gray = Image.new("RGB", (200, 200), (128, 128, 128))
    noised = pixels(get_corruption(f"noise-{steps}")(gray, np.random.default_rng(0)))
    signal = kept_signal(steps)
    spread = math.sqrt(1 - signal)
    values = np.random.default_rng(1).normal(math.sqrt(signal) * 128 / 255, spread, 200_000).clip(0, 1)
    assert noised.mean() == pytest.approx(values.mean(), abs=0.01)
    assert noised.std() == pytest.approx(values.std(), abs=0.01)
    assert (noised.std(axis=-1) > spread / 10).mean() > 0.8  # each color has its own noise


def test_no_step_is_no_noise() -> None:
    image = a_picture()
    assert get_corruption("noise-0")(image, np.random.default_rng(0)).tobytes() == image.tobytes()


def test_more_steps_are_further_from_the_picture() -> None:
    image = a_picture()
    far = [
        np.abs(pixels(get_corruption(f"noise-{n}")(image, np.random.default_rng(0))) - pixels(image)).mean()
        for n in (100, 300, 500, 1000)
    ]
    assert far == sorted(far)


# --- the other views --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*CORRUPTIONS, "noise-300"])
@pytest.mark.parametrize("size", [(60, 40), (1, 1), (3, 200)])
def test_a_view_keeps_the_size_draws_from_its_stream_and_leaves_the_picture_alone(
    name: str, size: tuple[int, int]
) -> None:
    image = a_picture(*size)
    before = image.tobytes()
    one, again = (get_corruption(name)(image, np.random.default_rng(3)) for _ in range(2))
    assert (one.size, one.mode) == (size, "RGB")
    assert one.tobytes() == again.tobytes() and image.tobytes() == before
    if size == (60, 40):
        assert one.tobytes() != before
        others = {get_corruption(name)(image, np.random.default_rng(seed)).tobytes() for seed in range(12)}
        # A tenth to a sixth of 60 x 40 has few sizes, and a crop may lie within one color.
        assert {"gray": 1, "black": 1, "flip": 2, "small": 4, "crop": 6}.get(name, 12) <= len(others) <= 12


@pytest.mark.parametrize("seed", range(5))
def test_blur_and_low_resolution_take_detail_and_keep_the_whole(seed: int) -> None:
    board = Image.fromarray((np.indices((96, 96)).sum(0) % 2 * 255).astype(np.uint8)).convert("RGB")
    for name in ("blur", "small"):
        seen = pixels(get_corruption(name)(board, np.random.default_rng(seed)))
        assert seen.std() < 0.1 and seen.mean() == pytest.approx(0.5, abs=0.06)


def test_jitter_turns_colors_and_keeps_shapes() -> None:
    hues = []
    for seed in range(6):
        seen = get_corruption("jitter")(a_picture(), np.random.default_rng(seed))
        hues.append(seen.convert("HSV").getpixel((50, 20))[0])  # type: ignore[index]
        flat = np.asarray(seen)[2:38, 33:58].reshape(-1, 3)
        assert (flat == flat[0]).all()  # the blue side is one color still
    before = a_picture().convert("HSV").getpixel((50, 20))[0]  # type: ignore[index]
    assert all(min((hue - before) % 256, (before - hue) % 256) > 20 for hue in hues)


def test_a_crop_is_a_fifth_of_the_picture_at_most() -> None:
    """On a picture whose color tells the place, the part's width and height are to be read off."""
    ramp = np.zeros((100, 100, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(100)[None] * 2, np.arange(100)[:, None] * 2
    places = set()
    for seed in range(40):
        seen = np.asarray(get_corruption("crop")(Image.fromarray(ramp), np.random.default_rng(seed)), int)
        wide, high = np.ptp(seen[..., 0]) / 200, np.ptp(seen[..., 1]) / 200
        assert wide * high <= 0.2 and wide > 0.1
        places.add((seen[..., 0].min() // 50, seen[..., 1].min() // 50))
    assert len(places) > 4


def test_a_flip_is_one_of_two() -> None:
    image = a_picture()
    seen = {get_corruption("flip")(image, np.random.default_rng(seed)).tobytes() for seed in range(10)}
    mirrored = np.asarray(image)[:, ::-1].tobytes(), np.asarray(image)[::-1].tobytes()
    assert seen == set(mirrored)


def test_gray_shows_nothing() -> None:
    assert set(get_corruption("gray")(a_picture(), np.random.default_rng(0)).get_flattened_data()) == {(128, 128, 128)}


@pytest.mark.parametrize("name", ["", "noise", "noise-", "noise--1", "noise-1001", "noise-1.5", "Blur", "none"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"no image corruption .*noise-0 to noise-1000, or blur, small"):
        get_corruption(name)


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_is_named_by_its_content_and_its_draw(samples_dir: Path, vlm: VLM, tmp_path: Path) -> None:
    context = make_context(samples_dir, tmp_path, vlm)
    path = samples_dir / "images/0.png"
    one = corrupt_image(path, "noise-500", context, np.random.default_rng(5))
    assert one.parent == context.scratch and one.suffix == ".png"
    written = one.stat().st_mtime_ns
    assert corrupt_image(path, "noise-500", context, np.random.default_rng(5)) == one
    assert one.stat().st_mtime_ns == written
    others = {
        corrupt_image(path, "noise-500", context, np.random.default_rng(6)),
        corrupt_image(path, "noise-400", context, np.random.default_rng(5)),
        corrupt_image(samples_dir / "images/1.png", "noise-500", context, np.random.default_rng(5)),
    }
    assert len(others | {one}) == 4
    with Image.open(path) as image, Image.open(one) as weak:
        assert image.size == weak.size and image.convert("RGB").tobytes() != weak.tobytes()


def test_a_weakened_picture_moves_the_stream_by_one_draw(samples_dir: Path, vlm: VLM, tmp_path: Path) -> None:
    """So that a missing file, or one that is there, changes nothing behind it."""
    context = make_context(samples_dir, tmp_path, vlm)
    streams = [np.random.default_rng(5) for _ in range(3)]
    corrupt_image(samples_dir / "images/0.png", "crop", context, streams[0])
    corrupt_image(samples_dir / "images/0.png", "crop", context, streams[1])
    streams[2].integers(2**63)
    assert len({stream.integers(2**63) for stream in streams}) == 1
