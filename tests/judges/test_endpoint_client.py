"""The client against a real local server: order, bodies, pictures, concurrency, and the cache."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.endpoint import Ask
from sightline.endpoint.client import CachedReply, ReplyCache
from sightline.errors import InputError
from tests.judges.local_server import Act, Body, echo, endpoint, in_turn, pictures_of, say, serving, text_of

pytest.importorskip("openai")
MakeImage = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("own_cache")


# --- what is asked and answered ---------------------------------------------------------------------------------------


def test_replies_come_in_order_and_the_same_is_asked_once() -> None:
    with serving(echo) as (url, heard):
        asks = [Ask(f"question {number % 7}") for number in range(20)]
        replies = endpoint(url, concurrency=5).ask(asks)
    assert [reply.text for reply in replies] == [f"to question {number % 7}" for number in range(20)]
    assert {reply.tokens for reply in replies} == {7}
    assert sorted(heard.texts()) == [f"question {number}" for number in range(7)]


def test_a_call_holds_what_the_config_says() -> None:
    with serving(echo) as (url, heard):
        endpoint(url, seed=3, max_tokens=9).ask([Ask("hello", seed=2**31 + 4)])
        endpoint(url, seed=None, temperature=None, limit_name="max_completion_tokens").ask([Ask("hello")])
    user = [{"role": "user", "content": "hello"}]
    assert heard.bodies == [
        {"model": "m", "messages": user, "max_tokens": 9, "temperature": 0.0, "seed": 7},
        {"model": "m", "messages": user, "max_completion_tokens": 512},
    ]


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret\n")
    with serving(echo) as (url, heard):
        endpoint(url, api_key_env="MY_KEY").ask([Ask("hello")])
    assert heard.headers[0]["authorization"] == "Bearer sk-secret"
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(InputError, match="MY_KEY, which is not set"):
        endpoint(url, api_key_env="MY_KEY")


def test_pictures_arrive_in_order_before_the_text(make_image: MakeImage) -> None:
    red, blue = make_image("red.png", color="red"), make_image("blue.bmp", color="blue")

    def by_picture(body: Body, number: int) -> Act:
        kinds = [part["type"] for part in body["messages"][0]["content"]]
        return say(f"{kinds} {[image.convert('RGB').getpixel((0, 0)) for image in pictures_of(body)]}")

    with serving(by_picture) as (url, _):
        (reply,) = endpoint(url).ask([Ask("which colors?", (red, blue))])
    assert reply.text == "['image_url', 'image_url', 'text'] [(255, 0, 0), (0, 0, 255)]"


def test_a_small_picture_arrives_pixel_by_pixel_and_a_large_one_scaled_down(make_image: MakeImage) -> None:
    small, large = make_image("small.png", (40, 24), "olive"), make_image("large.jpg", (900, 300), "olive")
    with serving(echo) as (url, heard):
        endpoint(url, max_side=90).ask([Ask("a", (small,)), Ask("b", (large,))])
    sent = {text_of(body): pictures_of(body)[0] for body in heard.bodies}
    with Image.open(small) as image:
        assert sent["a"].convert("RGB").tobytes() == image.convert("RGB").tobytes()
    assert sent["b"].size == (90, 30)


def test_a_photograph_goes_as_jpeg(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    with serving(echo) as (url, heard):
        endpoint(url).ask([Ask("a", (tmp_path / "noise.png",))])
    assert pictures_of(heard.bodies[0])[0].format == "JPEG"


def test_a_missing_picture_is_refused(tmp_path: Path) -> None:
    with serving(echo) as (url, heard), pytest.raises(InputError, match=r"gone\.png"):
        endpoint(url).ask([Ask("a", (tmp_path / "gone.png",))])
    assert heard.bodies == []


def test_thinking_is_taken_off() -> None:
    with serving(in_turn(say("<think>Score: 1\n</think>\n\nScore: 2"))) as (url, _):
        assert endpoint(url).ask([Ask("a")])[0].text == "Score: 2"


@pytest.mark.parametrize("concurrency", [1, 4])
def test_calls_run_at_once_and_no_more_than_asked_for(concurrency: int) -> None:
    """Each call waits for its companions: were they one after the other, the barrier would break."""
    barrier = threading.Barrier(concurrency)

    def together(body: Body, number: int) -> Act:
        barrier.wait(10)
        return say("ok")

    with serving(together) as (url, heard):
        replies = endpoint(url, concurrency=concurrency).ask([Ask(str(number)) for number in range(8)])
    assert all(reply.text == "ok" for reply in replies) and heard.most == concurrency


# --- the cache --------------------------------------------------------------------------------------------------------


def test_what_was_answered_is_not_asked_again(make_image: MakeImage) -> None:
    picture = make_image()
    asks = [Ask("a", (picture,)), Ask("b")]
    with serving(echo) as (url, _):
        first = endpoint(url).ask(asks)
    assert endpoint("http://127.0.0.1:9/v1", timeout=1, concurrency=1).ask(asks) == first  # nobody is there


@pytest.mark.parametrize(
    "change",
    [{"model": "n"}, {"temperature": 0.5}, {"seed": 1}, {"max_tokens": 5}, {"max_side": 20}, {"temperature": None}],
)
def test_whatever_decides_the_answer_is_asked_anew(change: dict[str, object]) -> None:
    with serving(echo) as (url, heard):
        endpoint(url).ask([Ask("a")])
        endpoint(url, **change).ask([Ask("a")])
    assert len(heard.bodies) == 2


def test_text_seed_and_picture_decide_too(make_image: MakeImage) -> None:
    picture = make_image()
    with serving(echo) as (url, heard):
        server = endpoint(url)
        server.ask([Ask("a"), Ask("b"), Ask("a", seed=1), Ask("a", (picture,))])
        make_image(color="red")  # the same file with other content
        server.ask([Ask("a", (picture,))])
    assert len(heard.bodies) == 5
    sent = [pictures_of(body)[0].convert("RGB").getpixel((0, 0)) for body in heard.bodies if pictures_of(body)]
    assert sent == [(0, 128, 128), (255, 0, 0)]


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-9], lambda data: data.replace(b"to a", b"no a")]
)
def test_a_damaged_entry_is_asked_again(own_cache: Path, damage: Callable[[bytes], bytes]) -> None:
    with serving(echo) as (url, heard):
        endpoint(url).ask([Ask("a")])
        (entry,) = own_cache.rglob("*.json")
        entry.write_bytes(damage(entry.read_bytes()))
        assert endpoint(url).ask([Ask("a")])[0].text == "to a"
        endpoint(url).ask([Ask("a")])
    assert len(heard.bodies) == 2


def test_without_cache_all_is_asked_again_and_nothing_written(own_cache: Path) -> None:
    with serving(echo) as (url, heard):
        for _ in range(2):
            endpoint(url, cache=False).ask([Ask("a")])
    assert len(heard.bodies) == 2 and not own_cache.exists()


def test_a_cache_of_no_use_stops_nothing(tmp_path: Path, own_cache: Path) -> None:
    own_cache.parent.mkdir()
    own_cache.write_text("a file where the folder should be")
    with serving(echo) as (url, _), pytest.warns(UserWarning, match="answers cannot be kept") as warned:
        replies = endpoint(url, concurrency=1).ask([Ask("a"), Ask("b")])
    assert [reply.text for reply in replies] == ["to a", "to b"] and len(warned) == 1


def test_writers_side_by_side_leave_whole_entries(tmp_path: Path) -> None:
    cache = ReplyCache(tmp_path)
    texts = ["short", "long " * 20_000]

    def write(text: str) -> None:
        for _ in range(50):
            cache.put("ab12", CachedReply(text=text, tokens=1, cut_off=False))

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found = cache.get("ab12")
        assert found is None or found.text in texts
    for thread in threads:
        thread.join()
    assert [path.name for path in (tmp_path / "ab").iterdir()] == ["ab12.json"]


SLOW_WRITER = """
import sys, time
from pathlib import Path
from sightline.endpoint.client import CachedReply, ReplyCache

whole = Path.write_text
Path.write_text = lambda path, text, **_: (whole(path, text[:9]), time.sleep(60))
ReplyCache(Path(sys.argv[1])).put("ab" + "0" * 62, CachedReply(text="a cup", tokens=1, cut_off=False))
"""


def temporaries(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.tmp"))


def test_what_a_killed_writer_leaves_is_removed_when_the_cache_is_opened(tmp_path: Path) -> None:
    """Another process may write meanwhile: its file stays."""
    key = "ab" + "0" * 62
    killed, writing = (subprocess.Popen([sys.executable, "-c", SLOW_WRITER, str(tmp_path)]) for _ in range(2))
    try:
        while len(temporaries(tmp_path)) < 2 or not all(path.stat().st_size for path in temporaries(tmp_path)):
            assert killed.poll() is writing.poll() is None
            time.sleep(0.01)
        killed.kill()
        killed.wait()
        cache = ReplyCache(tmp_path)
        (left,) = temporaries(tmp_path)
        assert left.name.startswith(f".{key}.json.") and left.read_text() == '{"text":"'
        assert cache.get(key) is None
    finally:
        writing.kill()
        writing.wait()
    ReplyCache(tmp_path)
    assert temporaries(tmp_path) == []
    cache.put(key, CachedReply(text="a cup", tokens=1, cut_off=False))
    assert [path.name for path in (tmp_path / "ab").iterdir()] == [f"{key}.json"]


def test_leftovers_of_earlier_versions_are_removed_once_they_are_old(tmp_path: Path) -> None:
    """Their names have 32 random digits and no lock, so an old time stamp must show that nobody writes them."""
    folder = tmp_path / "ab"
    folder.mkdir()
    old, new = (folder / f".ab12.{digit * 32}.tmp" for digit in "0f")
    others = [folder / "notes.tmp", folder / ".ab12.backup.tmp", tmp_path / ".ab12.0.tmp"]
    for path in (old, new, *others):
        path.write_text("half")
    for path in (old, *others):
        os.utime(path, (time.time() - 7200,) * 2)
    ReplyCache(tmp_path)
    assert not old.exists() and new.exists() and all(path.exists() for path in others)
