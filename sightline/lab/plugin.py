"""The lab as a plugin: its oracle and its benchmarks, registered by name and imported only when they are used."""

from sightline.evals.registry import BENCHMARKS, COUNTER_SUFFIX, BenchmarkEntry
from sightline.oracles import ORACLES, OracleEntry

_BENCHMARKS = {
    "lab-pope-random": "Is there an X? Absent kinds drawn at random.",
    "lab-pope-popular": "Is there an X? Absent kinds that are common.",
    "lab-pope-adversarial": "Is there an X? Absent kinds that go with what is there.",
    "lab-chair": "Descriptions: absent objects named, present ones named.",
    "lab-vqa": "How many, what color, where.",
    "lab-meta": "Descriptions under wishes of provider and user: is the one in force followed?",
    "lab-meta-unseen": "The same under wishes that were never trained on.",
}
_SHARED_MEDIA = {
    "shared-media": "The lab's pictures and sounds: what is seen, heard, shared; for composed models.",
    "shared-media-picture": "The same, shown the picture alone.",
    "shared-media-sound": "The same, played the sound alone.",
}

for _suffix in ("", COUNTER_SUFFIX):
    for _name, _help in _BENCHMARKS.items():
        BENCHMARKS.add(
            _name + _suffix, BenchmarkEntry("sightline.lab.benches:lab_benchmark", _help, has_validation=True)
        )
for _name, _help in _SHARED_MEDIA.items():
    BENCHMARKS.add(_name, BenchmarkEntry("sightline.lab.sound.bench:shared_media", _help, has_validation=True))

ORACLES.add(
    "lab",
    OracleEntry(
        "sightline.lab.oracle:score",
        "The embedded lab: drawn scenes with exact truth.",
        rewrite="sightline.lab.oracle_writer:rewrite",
        wishes="sightline.lab.wishes:contrast_of",
        samples="sightline.lab.samples:write_scenes",
        samples_config="sightline.lab.samples:ScenesConfig",
        base_model="sightline.lab:BASE",
    ),
)
