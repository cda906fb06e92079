"""The config section of an evaluation's judge: which server, how often, what it costs. It asks nothing itself."""

from pathlib import Path

from pydantic import Field

from sightline.config import Config
from sightline.endpoint import EndpointConfig
from sightline.evals.judging.grading import Grading, template_of
from sightline.records import hash_json


class JudgeConfig(Config):
    """Who grades answers. Prices are for a million tokens; without them the cost is told in calls and tokens alone."""

    server: EndpointConfig
    prompt: Path | None = Field(default=None, description="a prompt of your own, or the official one; hashed")
    runs: int = Field(default=1, ge=1, description="how often each answer is graded; MM-Vet's paper did it five times")
    prompt_price: float | None = Field(default=None, ge=0)
    reply_price: float | None = Field(default=None, ge=0)
    currency: str = "USD"

    def grading(self, own: Grading) -> Grading:
        """The benchmark's grading, behind the prompt of this config where it names one."""
        return own if self.prompt is None else own.with_prompt(template_of(self.prompt))

    def identity(self, own: Grading) -> str:
        """A hash of all that decides a verdict: prompt, rule, model and sampling, not the server's address."""
        return hash_json([self.grading(own).identity, self.server.identity])
