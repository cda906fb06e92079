"""What a monitor is told beside its directories: the false-alarm rate of it all. How a judge is used is `judging`."""

from pydantic import Field

from sightline.config import Config


class MonitorConfig(Config):
    """The watch as a whole."""

    alpha: float = Field(
        default=0.05, gt=0, lt=1, description="chance that anything ever alarms without drift, for the life of --out"
    )
    benchmarks: tuple[str, ...] = Field(default=(), description="of a baseline that is an evaluation; all where empty")
    least: int = Field(default=20, ge=1, description="a number with fewer values in the baseline is not watched")
    seed: int = Field(default=0, ge=0, description="of ties and of the sample that is judged")
