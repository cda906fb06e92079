"""The disk cache: entries return bit for bit or not at all, within the bound, with concurrent and killed writers."""

import contextlib
import multiprocessing
import os
import random
import resource
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sightline.models import tensor_cache
from sightline.models.tensor_cache import TensorCache, content_key

NAN = torch.tensor([0x7FC00001, -1], dtype=torch.int32).view(torch.float32)  # payloads that arithmetic would lose
TENSORS = {
    "float": torch.randn(3, 5),
    "bfloat": torch.randn(2, 3, 4).bfloat16(),
    "half": torch.randn(7).half(),
    "double": torch.randn(1, dtype=torch.float64),
    "int": torch.tensor([2**62 + 1, -1]),
    "bool": torch.tensor([True, False, True]),
    "byte": torch.arange(3, dtype=torch.uint8),
    "scalar": torch.tensor(-0.0),
    "empty": torch.empty(0, 4),
    "nan": NAN,
    'name with "crc32":"00000000" and é': torch.zeros(1),
}
MANY = 10**9


def keyed(number: int) -> str:
    return content_key(number)


def bits(tensors: dict[str, Tensor] | None) -> list[tuple[str, torch.dtype, tuple[int, ...], bytes]]:
    assert tensors is not None
    return [
        (name, t.dtype, tuple(t.shape), t.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, t in tensors.items()
    ]


def entries(directory: Path) -> list[Path]:
    return sorted(directory.glob("??/*.safetensors"))


def temporaries(directory: Path) -> list[Path]:
    return sorted(directory.glob("**/*.tmp"))


def size_on_disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in entries(directory))


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def content(number: int) -> dict[str, Tensor]:
    """Some kilobytes derived from the number, so that a process can detect a wrong entry."""
    return {"a": torch.full((1000,), number, dtype=torch.int64), "b": torch.tensor(number).bfloat16()}


def fetches_right(cache: TensorCache, number: int) -> bool:
    return bits(cache.fetch(keyed(number), lambda: content(number))) == bits(content(number))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def cache(directory: Path) -> TensorCache:
    return TensorCache(directory, max_bytes=MANY)


@pytest.fixture(scope="module")
def size(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Bytes of an entry of `content`."""
    directory = tmp_path_factory.mktemp("size")
    TensorCache(directory, max_bytes=MANY).put(keyed(0), content(0))
    return size_on_disk(directory)


def test_what_is_put_comes_back_bit_for_bit(cache: TensorCache, directory: Path) -> None:
    key = keyed(0)
    assert cache.hit_rate is None and cache.get(key) is None
    cache.put(key, TENSORS)
    assert bits(cache.get(key)) == bits({name: TENSORS[name] for name in sorted(TENSORS)})
    assert bits(TensorCache(directory, max_bytes=MANY).get(key)) == bits(cache.get(key))
    assert entries(directory) == [directory / key[:2] / f"{key}.safetensors"] and not temporaries(directory)
    cache.put(keyed(1), {})
    assert cache.get(keyed(1)) == {}
    assert (cache.hits, cache.misses, cache.damaged) == (3, 1, 0) and cache.hit_rate == 0.75


def test_fetch_gives_the_same_the_first_time_and_the_second(cache: TensorCache) -> None:
    base = torch.randn(4, 6, requires_grad=True)
    odd = {"whole": base, "across": base.T, "part": base[1:, 3], "wide": base[0].expand(5, 6), "bf": base.bfloat16()}
    with torch.inference_mode():
        odd["inferred"] = torch.randn(3)
    calls: list[int] = []

    def compute() -> dict[str, Tensor]:
        calls.append(1)
        return odd

    first, second = cache.fetch(keyed(0), compute), cache.fetch(keyed(0), compute)
    assert calls == [1] and (cache.hits, cache.misses) == (1, 1)
    assert bits(first) == bits(second) == bits({name: odd[name] for name in sorted(odd)})
    for tensor in (*first.values(), *second.values()):
        assert tensor.is_contiguous() and not tensor.requires_grad and not tensor.is_inference()
        assert tensor.data_ptr() % 64 == 0, "kernels may sum otherwise where the alignment is another"
    first["whole"].zero_()
    assert base.any() and bits(cache.get(keyed(0))) == bits(second)


def test_compute_may_fail_and_leaves_nothing(cache: TensorCache, directory: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        cache.fetch(keyed(0), lambda: {"a": torch.zeros(1 // 0)})
    with pytest.raises(RuntimeError):
        cache.put(keyed(0), {"a": torch.eye(2).to_sparse()})
    with pytest.raises(KeyError):
        cache.put(keyed(0), {"a": torch.zeros(1, dtype=torch.complex128)})
    assert not directory.exists()


@pytest.mark.parametrize(
    "key", ["", "ab", "../../../../etc/passwd", "A" * 64, "a" * 64 + "\n", "a" * 20 + "/" + "a" * 20]
)
def test_a_key_is_a_digest(cache: TensorCache, key: str) -> None:
    with pytest.raises(ValueError, match="is not a key"):
        cache.get(key)
    with pytest.raises(ValueError, match="is not a key"):
        cache.put(key, TENSORS)


def test_the_least_recently_used_go_first(directory: Path, size: int) -> None:
    cache = TensorCache(directory, max_bytes=4 * size + size // 2)
    for number in range(4):
        cache.put(keyed(number), content(number))
        age(cache._path(keyed(number)), 1000 - number)
    assert cache.get(keyed(0)) and cache.get(keyed(2))  # reading refreshes their time
    for number in (4, 5):
        cache.put(keyed(number), content(number))
    assert {path.stem for path in entries(directory)} == {keyed(number) for number in (0, 2, 4, 5)}
    assert cache.get(keyed(1)) is None and bits(cache.get(keyed(0))) == bits(content(0))


def test_a_read_seldom_writes(cache: TensorCache, directory: Path) -> None:
    cache.put(keyed(0), content(0))
    [path] = entries(directory)
    for seconds, refreshed in ((30, False), (90, True), (-90, True)):
        age(path, seconds)
        before = path.stat().st_mtime_ns
        assert cache.get(keyed(0))
        assert (path.stat().st_mtime_ns != before) == refreshed and abs(path.stat().st_mtime - time.time()) < 60


@pytest.mark.parametrize("room", [1.0, 2.5, 10.0, 40.0])
def test_the_bound_is_kept_at_every_moment(directory: Path, size: int, room: float) -> None:
    bound = int(room * size)
    cache, walks = TensorCache(directory, max_bytes=bound), 0
    walk = cache._entries

    def counted() -> Iterator[tuple[int, Path, int]]:
        nonlocal walks
        walks += 1
        return walk()

    cache._entries = counted  # type: ignore[method-assign]
    count = int(3 * room) + 2
    for number in range(count):
        cache.put(keyed(number), content(number))
        assert size_on_disk(directory) <= bound and cache.get(keyed(number)), "the newest is always there"
    assert size_on_disk(directory) >= bound * 7 / 8 - size, "and no more is evicted than the room for a step"
    assert walks <= count / max(1, room // 8) + 1, "many entries are written between two walks"


def test_what_others_left_counts_and_what_is_foreign_stays(directory: Path, size: int) -> None:
    generous = TensorCache(directory, max_bytes=MANY)
    for number in range(20):
        generous.put(keyed(number), content(number))
    folder = entries(directory)[0].parent
    other = f"{folder.name}{'0' * 40}"
    foreign = [
        directory / "model.safetensors",
        directory / f"{other}.safetensors",  # not in the folder of its first digits
        folder / "model.safetensors",
        folder / "notes.txt",
        folder / ".hidden.tmp",
    ]
    fresh, abandoned = (folder / f".{other}.{digit * 32}.tmp" for digit in "ab")
    for path in (*foreign, fresh, abandoned):
        path.write_bytes(bytes(3 * size))
    for path in (*foreign, abandoned):
        age(path, 3700)
    age(fresh, 3500)
    TensorCache(directory, max_bytes=5 * size).put(keyed(99), content(99))
    assert 3 * size <= size_on_disk(directory) - 3 * size <= 5 * size  # the foreign one in the folder is no entry
    assert all(path.exists() for path in (*foreign, fresh)) and not abandoned.exists()


def test_an_entry_larger_than_the_bound_is_not_stored(directory: Path, size: int) -> None:
    cache = TensorCache(directory, max_bytes=size)
    cache.put(keyed(0), content(0))
    large = {"a": torch.zeros(size)}
    assert bits(cache.fetch(keyed(1), lambda: large)) == bits(large) and cache.get(keyed(1)) is None
    assert cache.get(keyed(0)), "and nothing is evicted for it"


def flip(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[:100],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: bytes(len(data)),
        lambda data: data[:-4096] + bytes(4096),
        lambda data: b"not a tensor file",
        lambda data: flip(data, 8 * len(data) - 1),
        lambda data: flip(data, 8 * len(data) - 30000),
    ],
)
def test_a_damaged_entry_is_noticed_and_made_again(
    cache: TensorCache, directory: Path, damage: Callable[[bytes], bytes]
) -> None:
    cache.put(keyed(0), content(7))
    [path] = entries(directory)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert cache.get(keyed(0)) is None and not path.exists()
    assert (cache.hits, cache.misses, cache.damaged) == (0, 1, 1)
    path.write_bytes(damage(whole))
    assert bits(cache.fetch(keyed(0), lambda: content(7))) == bits(content(7)) == bits(cache.get(keyed(0)))
    assert path.read_bytes() == whole and cache.damaged == 2


def test_every_single_bit_counts(cache: TensorCache, directory: Path) -> None:
    cache.put(keyed(0), {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3)})
    [path] = entries(directory)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        path.write_bytes(flip(whole, bit))
        assert cache.get(keyed(0)) is None, bit
    assert cache.damaged == 8 * len(whole) > 1000


def test_the_directory_may_vanish(cache: TensorCache, directory: Path) -> None:
    for _ in range(2):
        assert fetches_right(cache, 0)
        shutil.rmtree(directory)
        assert cache.get(keyed(0)) is None


def test_threads_share_a_cache(directory: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bound, wrong, largest = 4 * size, list[int](), 0
    cache, write = TensorCache(directory, max_bytes=bound), Path.write_bytes

    def write_late(path: Path, data: bytes) -> int:
        time.sleep(0.001)  # between making room and using it
        return write(path, data)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        wrong.extend(n for n in (rng.randrange(12) for _ in range(40)) if not fetches_right(cache, n))

    monkeypatch.setattr(Path, "write_bytes", write_late)
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with contextlib.suppress(FileNotFoundError):
            largest = max(largest, size_on_disk(directory))
    assert not wrong and size < largest <= bound and not temporaries(directory)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Executor]:
    """A separate process with one thread, so that it may fork without importing torch again."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        yield executor


def fetch_many(directory: Path, bound: int, seed: int) -> None:
    """One of several processes that fetch, check and evict the same few entries, and sometimes delete one."""
    warnings.simplefilter("error")
    rng, cache = random.Random(seed), TensorCache(directory, max_bytes=bound)
    for _ in range(100):
        number = rng.randrange(9)
        if rng.random() < 0.1:
            cache._path(keyed(number)).unlink(missing_ok=True)
        assert fetches_right(cache, number)
    assert cache.hits and cache.misses and not cache.damaged


def run_writers(directory: Path, bound: int) -> list[int | None]:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=fetch_many, args=(directory, bound, seed)) for seed in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    return [writer.exitcode for writer in writers]


def test_processes_write_read_and_evict_side_by_side(elsewhere: Executor, directory: Path, size: int) -> None:
    bound = 4 * size
    assert elsewhere.submit(run_writers, directory, bound).result(120) == [0, 0, 0]
    assert 0 < size_on_disk(directory) <= bound + 2 * size, "each further process may be one entry ahead"
    assert not temporaries(directory)
    cache = TensorCache(directory, max_bytes=bound)
    cache.put(keyed(0), content(0))
    assert size_on_disk(directory) <= bound
    assert all(cache.get(path.stem) for path in entries(directory))


def put_forever(directory: Path) -> None:
    cache = TensorCache(directory, max_bytes=40 * 2**20)
    for number in range(MANY):
        cache.put(keyed(number % 30), {"a": torch.full((2**18,), number)})


def kill_writers(directory: Path, kills: int) -> int:
    """Kill writers, alternately at any moment and while writing, until some leave torn files; return their number.

    The time limit is for a writer that makes no temporary files.
    """
    context, rng = multiprocessing.get_context("fork"), random.Random(0)
    for kill in range(4 * kills):
        before = len(temporaries(directory))
        writer = context.Process(target=put_forever, args=(directory,))
        writer.start()
        deadline = time.monotonic() + 2
        while kill % 2 and len(temporaries(directory)) == before and time.monotonic() < deadline:
            time.sleep(0.0002)
        time.sleep(rng.uniform(0, 0.001) if kill % 2 else rng.uniform(0.02, 0.1))
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        if kill >= kills and len(temporaries(directory)) >= 3:
            break
    return len(temporaries(directory))


def test_killed_writers_leave_a_usable_cache(elsewhere: Executor, directory: Path) -> None:
    broken_off = elsewhere.submit(kill_writers, directory, 12).result(300)
    if len(os.sched_getaffinity(0)) > 1:  # on one core the killer hardly ever runs while a file is written
        assert broken_off >= 1, "some died in the middle of a file"
    cache = TensorCache(directory, max_bytes=40 * 2**20)
    assert entries(directory) and all(cache.get(path.stem) for path in entries(directory)) and not cache.damaged
    for path in temporaries(directory):
        age(path, 3700)
    TensorCache(directory, max_bytes=2**20).put(keyed(0), content(0))
    assert not temporaries(directory) and size_on_disk(directory) <= 2**20


def check_that_the_run_goes_on(cache: TensorCache, message: str) -> None:
    with pytest.warns(UserWarning, match=message) as caught:
        right = [fetches_right(cache, number) for number in range(3)]
    assert all(right) and len(caught) == 1 and cache.misses == 3


def test_a_directory_that_cannot_be_made_stops_nothing(directory: Path) -> None:
    directory.write_text("a file stands here")
    check_that_the_run_goes_on(TensorCache(directory, max_bytes=MANY), "Not a directory")
    assert directory.read_text() == "a file stands here"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_cannot_be_written_stops_nothing(directory: Path) -> None:
    TensorCache(directory, max_bytes=MANY).put(keyed(9), content(9))
    directory.chmod(0o555)
    cache = TensorCache(directory, max_bytes=MANY)
    try:
        assert bits(cache.get(keyed(9))) == bits(content(9))
        check_that_the_run_goes_on(cache, "Permission denied")
    finally:
        directory.chmod(0o755)


def test_a_full_disk_stops_nothing(directory: Path, size: int) -> None:
    """A file size limit truncates a write, as a full disk does."""
    cache = TensorCache(directory, max_bytes=MANY)
    cache.put(keyed(9), {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, before[1]))
    try:
        check_that_the_run_goes_on(cache, "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.stem for path in entries(directory)] == [keyed(9)] and not temporaries(directory)
    cache.put(keyed(0), content(0))
    assert cache.get(keyed(0)), "it is tried again"


def test_an_entry_that_cannot_be_evicted_is_not_written_over_the_bound(
    directory: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    TensorCache(directory, max_bytes=MANY).put(keyed(9), content(9))

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted")

    cache = TensorCache(directory, max_bytes=size)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        check_that_the_run_goes_on(cache, "Operation not permitted")
    assert [path.stem for path in entries(directory)] == [keyed(9)]


def test_constants_are_those_the_tests_assume() -> None:
    assert (tensor_cache._REFRESH, tensor_cache._ABANDONED) == (60, 3600)
