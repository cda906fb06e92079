"""The lab's truth as a judge: how right an answer is, for `pairs.judges.oracle`."""

from sightline.lab.parser import judge, parse_claims
from sightline.lab.world import Scene
from sightline.pairs.judges.base import Judged, Verdict
