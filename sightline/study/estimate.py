"""What a study would do and about how long that takes, before anything is begun.

Times are those of like pieces that the ledger knows, by what they count; where it knows none, nothing is guessed. Only
manifests and the ledger are read.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sightline.records.manifest import MANIFEST, read_manifest
from sightline.study.ledger import LEDGER, Entry, Ledger
from sightline.study.plan import Piece, StudyPlan


@dataclass(frozen=True)
class Forecast:
    """Pieces by kind: how many there are, how many are done, and the seconds of those that are left, where known."""

    arms: int
    seeds: int
    pieces: Mapping[str, int]
    done: Mapping[str, int]
    seconds: Mapping[str, float | None]

    def lines(self) -> Iterator[str]:
        """The plan as people read it."""
        yield f"{self.arms} arms, {self.seeds} seeds: {sum(self.pieces.values())} pieces of work, each done once"
        for kind, count in self.pieces.items():
            left = count - self.done[kind]
            seconds = self.seconds[kind]
            guess = "" if not left else ", time not known yet" if seconds is None else f", about {seconds / 60:.1f} min"
            yield f"  {kind}: {count}, of which {left} to do{guess}"


def estimate(plan: StudyPlan, out: Path) -> Forecast:
    """Look at what is done in `out`, and take the mean seconds of done pieces of a kind for those to come."""
    kinds = Counter[str](piece.kind for piece in plan.pieces.values())
    done = Counter[str](piece.kind for piece in plan.pieces.values() if _is_done(piece, out))
    entries = list(Ledger(out).entries().values()) if (out / LEDGER).exists() else []
    means = {kind: _mean_seconds(entries, kind) for kind in kinds}
    return Forecast(
        arms=len(plan.config.all_arms()),
        seeds=len(plan.config.seeds),
        pieces=dict(kinds),
        done={kind: done[kind] for kind in kinds},
        seconds={kind: None if mean is None else mean * (kinds[kind] - done[kind]) for kind, mean in means.items()},
    )


def _is_done(piece: Piece, out: Path) -> bool:
    directory = out / piece.folder
    return (directory / MANIFEST).exists() and read_manifest(directory).complete


def _mean_seconds(entries: list[Entry], kind: str) -> float | None:
    known = [entry.seconds for entry in entries if entry.kind == kind and entry.state == "done" and entry.seconds]
    return sum(known) / len(known) if known else None
