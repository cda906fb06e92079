"""Judges by name: the config class of each, whose `open` makes the judge; imported only when judges are used."""

from sightline.registry import Entry, Registry


def _foreign(target: str, origin: str) -> Entry:
    return Entry(target, f"From {origin}.")


_HERE = "sightline.judges"
LENGTH_CONTROLLED = "length-controlled"
JUDGES: Registry[Entry] = Registry(
    "judge",
    "sightline.judges",
    _foreign,
    {
        "oracle": Entry(f"{_HERE}.judge:OracleJudgeConfig", "Ground truth, where samples have it (the lab)."),
        "endpoint": Entry(f"{_HERE}.endpoint:EndpointJudgeConfig", "A model behind an OpenAI-compatible server."),
        "claims": Entry(f"{_HERE}.claims:ClaimsJudgeConfig", "A VLM's yes or no about each claim (RLAIF-V)."),
        "self": Entry(
            f"{_HERE}.reward:SelfJudgeConfig", "How much likelier the image makes the answer; no other model."
        ),
        "reward": Entry(f"{_HERE}.reward:RewardJudgeConfig", "A trained reward model, or a DPO adapter as one."),
        "clip": Entry(f"{_HERE}.clip:ClipJudgeConfig", "A dual encoder of images and text: CLIP, SigLIP."),
        LENGTH_CONTROLLED: Entry(
            f"{_HERE}.length_control:LengthControlledJudgeConfig",
            "Another judge with length taken out of its verdicts.",
        ),
    },
)
