"""The names of benchmarks and where each is made, resolved only when one is asked for.

An entry's factory is "package.module:function", called as `function(name, setting)`; nothing is imported before, so a
benchmark's needs are its own. What the factory returns is described in `benchmark`.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

from sightline.errors import InputError
from sightline.evals.benchmark import Benchmark, BenchmarkSetting

#: A benchmark whose name ends so asks the same of pictures that break the co-occurrence its twin's pictures keep.
COUNTER_SUFFIX = "-counter"

Factory = Callable[[str, BenchmarkSetting], Benchmark]


@dataclass(frozen=True)
class BenchmarkEntry:
    """A benchmark by name: who makes it, one line of help, and where its owners publish its files.

    `files` is empty where it makes its own. `needs_images` says whether `eval` must be given pictures too.
    `splits` are its official parts, of which `BenchmarkSetting.split` picks one. Only a benchmark with
    `has_validation` has separate pictures on which settings may be chosen.
    """

    factory: str
    help: str
    files: str = ""
    needs_images: bool = False
    splits: tuple[str, ...] = ()
    has_validation: bool = False


_LAB = {
    "lab-pope-random": "Is there an X? Absent kinds drawn at random.",
    "lab-pope-popular": "Is there an X? Absent kinds that are common.",
    "lab-pope-adversarial": "Is there an X? Absent kinds that go with what is there.",
    "lab-chair": "Descriptions: absent objects named, present ones named.",
    "lab-vqa": "How many, what color, where.",
    "lab-meta": "Descriptions under wishes of provider and user: is the one in force followed?",
    "lab-meta-unseen": "The same under wishes that were never trained on.",
}
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

BENCHMARKS: dict[str, BenchmarkEntry] = {
    **{
        name + suffix: BenchmarkEntry("sightline.lab.benches:lab_benchmark", text, has_validation=True)
        for suffix in ("", COUNTER_SUFFIX)
        for name, text in _LAB.items()
    },
    "matching": BenchmarkEntry(
        "sightline.recipes.matching.benchmark:entity_matching",
        "Pairs of records: F1 of match under four prompts, mean, best and spread.",
        files="the data sets' owners, as docs/match.md says; `sightline match read` makes the folder",
    ),
    **{
        f"shared-media{suffix}": BenchmarkEntry("sightline.lab.sound.bench:shared_media", text, has_validation=True)
        for suffix, text in (
            ("", "The lab's pictures and sounds: what is seen, heard, shared; for composed models."),
            ("-picture", "The same, shown the picture alone."),
            ("-sound", "The same, played the sound alone."),
        )
    },
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


def get_benchmark(name: str, setting: BenchmarkSetting) -> Benchmark:
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
    module, _, attribute = entry.factory.partition(":")
    factory = cast(Factory, getattr(importlib.import_module(module), attribute))
    return factory(name, setting)


def get_entry(name: str) -> BenchmarkEntry:
    """What is known of a benchmark without making it; an InputError names the nearest spelling where there is none."""
    if name not in BENCHMARKS:
        near = get_close_matches(name, BENCHMARKS, n=1, cutoff=0.0)
        remedy = f"did you mean {near[0]!r}?" if near else "none is registered."
        raise InputError(f"there is no benchmark {name!r}; {remedy}")
    return BENCHMARKS[name]
