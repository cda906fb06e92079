"""Benchmarks by name, each with its files and splits; a benchmark is imported only when it is used.

The target of an entry is a function, or its place, that is called as `function(name, setting)` and returns a
`benchmark.Benchmark`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from sightline.errors import InputError
from sightline.evals.benchmark import Benchmark, BenchmarkOptions
from sightline.registry import Entry, Registry

#: A benchmark whose name ends so asks the same of pictures that break the co-occurrence its twin's pictures keep.
COUNTER_SUFFIX = "-counter"

Factory = Callable[[str, BenchmarkOptions], Benchmark]


@dataclass(frozen=True)
class BenchmarkEntry(Entry):
    """A benchmark by name: its factory, one line of help, and where its owners publish its files.

    `files` is empty where it makes its own. `needs_images` says whether `eval` must be given pictures too.
    `splits` are its official parts, of which `BenchmarkOptions.split` picks one. Only a benchmark with
    `has_validation` has separate pictures on which settings may be chosen.
    """

    files: str = ""
    needs_images: bool = False
    splits: tuple[str, ...] = ()
    has_validation: bool = False


_POPE = "https://github.com/AoiDragon/POPE (output/)"
_POPE_SPLITS = ("random", "popular", "adversarial")
_AMBER = "https://github.com/junyangwang0410/AMBER (data/)"
_COCO = "https://cocodataset.org/#download (2014 Train/Val annotations)"

_BENCHES = "sightline.evals.benches."
_LLAVA = "https://github.com/haotian-liu/LLaVA"
#: Benchmarks of questions: name -> (factory, help, where its owners publish its files, its splits).
_QUESTIONS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "textvqa": (
        "textvqa:textvqa",
        "Reading text in pictures, by ten human answers.",
        "https://textvqa.org/dataset (v0.5.1)",
        ("val", "train"),
    ),
    "gqa": (
        "gqa:gqa",
        "Questions about scenes, by exact match.",
        "https://cs.stanford.edu/people/dorarad/gqa/download.html (questions1.2)",
        ("testdev_balanced", "testdev_all", "val_balanced", "val_all"),
    ),
    **{
        name: (
            "scienceqa:scienceqa",
            f"Multiple choice from school books, {which}.",
            "https://github.com/lupantech/ScienceQA (data/scienceqa)",
            ("test", "val", "minitest", "minival", "train"),
        )
        for name, which in (("scienceqa", "all questions"), ("scienceqa-img", "those with a picture"))
    },
    "mme": (
        "mme:mme",
        "Two yes/no questions a picture, fourteen sub-tasks.",
        "https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation",
        (),
    ),
    **{
        name: (
            "hallusionbench:hallusionbench",
            f"Altered figures; right per question, figure and pair; {how}.",
            "https://github.com/tianyi-lab/HallusionBench",
            (),
        )
        for name, how in (
            ("hallusionbench", "by a judge where one is given"),
            ("hallusionbench-words", "by words alone"),
        )
    },
    **{
        name: (
            "mmhal:mmhal",
            f"Open questions, graded 0 to 6 by a judge that {how}.",
            "https://huggingface.co/datasets/Shengcao1006/MMHal-Bench",
            (),
        )
        for name, how in (("mmhal", "reads"), ("mmhal-v", "sees the picture"))
    },
    "llava-bench": (
        "llava_bench:llava_bench",
        "Conversation, detail, reasoning in the wild, graded beside GPT-4.",
        "https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild",
        (),
    ),
    "llava-bench-coco": (
        "llava_bench:llava_bench",
        "Conversation, detail, reasoning on COCO, graded beside GPT-4.",
        f"{_LLAVA} (playground/data/coco2014_val_qa_eval, llava/eval/table)",
        (),
    ),
    "mm-vet": (
        "mmvet:mmvet",
        "Six capabilities in one answer, graded 0 to 1 by a judge.",
        "https://github.com/yuweihao/MM-Vet/releases (mm-vet.zip)",
        (),
    ),
}


def _foreign(target: str, origin: str) -> BenchmarkEntry:
    return BenchmarkEntry(target, f"From {origin}.")


_OFFICIAL: dict[str, BenchmarkEntry] = {
    **{
        name: BenchmarkEntry(
            "sightline.evals.benches.pope:pope",
            f"Is there an X? On {where}; each split and their mean.",
            files=_POPE,
            needs_images=True,
            splits=_POPE_SPLITS,
        )
        for name, where in (("pope", "COCO"), ("pope-aokvqa", "A-OKVQA's pictures"), ("pope-gqa", "GQA's pictures"))
    },
    "amber": BenchmarkEntry(
        "sightline.evals.benches.amber:amber",
        "Descriptions and yes/no questions; every dimension and the AMBER score.",
        files=_AMBER,
        needs_images=True,
        splits=("generative", "discriminative", "existence", "attribute", "relation"),
    ),
    "amber-generative": BenchmarkEntry(
        "sightline.evals.benches.amber:amber",
        "Descriptions alone: absent nouns, true objects named, expected hallucinations.",
        files=_AMBER,
        needs_images=True,
    ),
    "amber-discriminative": BenchmarkEntry(
        "sightline.evals.benches.amber:amber",
        "Yes/no questions alone: accuracy, and precision, recall and F1 of No.",
        files=_AMBER,
        needs_images=True,
        splits=("existence", "attribute", "relation"),
    ),
    "object-halbench": BenchmarkEntry(
        "sightline.evals.benches.object_halbench:object_halbench",
        "Detailed descriptions of 300 COCO pictures: absent objects, and the recall of present ones.",
        files=f"{_COCO}; the questions at https://github.com/RLHF-V/RLHF-V (eval/data/)",
        needs_images=True,
    ),
    "chair": BenchmarkEntry(
        "sightline.evals.benches.chair:chair",
        "Descriptions of COCO pictures: absent objects named, present ones named.",
        files=_COCO,
        needs_images=True,
    ),
    **{
        name: BenchmarkEntry(_BENCHES + factory, text, files=files, needs_images=True, splits=splits)
        for name, (factory, text, files, splits) in _QUESTIONS.items()
    },
}

BENCHMARKS: Registry[BenchmarkEntry] = Registry("benchmark", "sightline.benchmarks", _foreign, _OFFICIAL)


def get_benchmark(name: str, setting: BenchmarkOptions) -> Benchmark:
    """The benchmark of that name, made with a setting.

    Raises:
        InputError: no such benchmark (the nearest is named), no such split, or no validation part.
    """
    entry = get_entry(name)
    if setting.split is not None and setting.split not in entry.splits:
        known = ", ".join(entry.splits) or "none; leave --split out"
        raise InputError(f"benchmark {name!r} has no split {setting.split!r}; there are: {known}.")
    if setting.validation and not entry.has_validation:
        raise InputError(f"benchmark {name!r} has no validation part; set validation=false.")
    return cast(Factory, entry.load())(name, setting)


def get_entry(name: str) -> BenchmarkEntry:
    """What is known of a benchmark without making it; an InputError names the nearest spelling where there is none."""
    return BENCHMARKS.entry(name)
