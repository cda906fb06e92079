"""Simulated users: ask a served model about lab scenes, send feedback on its answers, and optionally drift.

Used in docs/guides/stages.md in place of real users. Thumbs and corrections follow the lab's truth; with --drift,
pictures are darker and prompts differ.
"""

import argparse
import base64
import io
from itertools import islice
from pathlib import Path

import httpx2
from PIL import Image

from sightline.data.samples import read_samples
from sightline.lab.oracle import score
from sightline.models.requests import JudgeInput, make_prefix
from sightline.records import Sample

OTHER = ("Write a poem about it, please.", "Which stocks should I buy after seeing that?", "Translate the menu for me.")


def picture_url(path: Path, *, dark: bool) -> str:
    """A picture as a data URL; dark at a third of its brightness."""
    data = path.read_bytes()
    if dark:
        buffer = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").point([value // 3 for value in range(256)] * 3).save(buffer, "PNG")
        data = buffer.getvalue()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def ask(client: httpx2.Client, model: str, prompt: str, url: str) -> tuple[str, str]:
    """Ask the model; returns the call's id and the answer."""
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}]
    body = {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": 64}
    answer = client.post("/v1/chat/completions", json=body).raise_for_status()
    return answer.headers["x-sightline-id"], answer.json()["choices"][0]["message"]["content"]


def opinion(sample: Sample, folder: Path, answer: str) -> dict[str, str] | None:
    """Feedback by the lab's truth: thumb up, or thumb down and a correction."""
    verdict = score(JudgeInput(make_prefix(sample, folder), answer, sample.reference, sample.truth))
    if verdict.score is None:
        return None
    if verdict.aspects["mistakes"] == 0:
        return {"thumb": "up"}
    return {"thumb": "down"} | ({"correction": sample.reference} if sample.reference else {})


def main() -> None:
    """Ask about samples of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("samples", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--first", type=int, default=0, help="index of the first sample")
    parser.add_argument("--count", type=int, default=60, help="number of samples")
    parser.add_argument("--feedback", action="store_true", help="send feedback on the answers")
    parser.add_argument("--drift", action="store_true", help="send darker pictures and other prompts")
    args = parser.parse_args()
    with httpx2.Client(base_url=args.url, timeout=120, trust_env=False) as client:
        model = client.get("/v1/models").json()["data"][0]["id"]
        thumbs = {"up": 0, "down": 0}
        for number, sample in enumerate(islice(read_samples(args.samples), args.first, args.first + args.count)):
            prompt = OTHER[number % len(OTHER)] if args.drift else sample.prompt
            url = picture_url(args.samples / sample.images[0], dark=args.drift)
            call, answer = ask(client, model, prompt, url)
            rating = opinion(sample, args.samples, answer) if args.feedback else None
            if rating is not None:
                client.post("/feedback", json={"id": call, **rating}).raise_for_status()
                thumbs[rating["thumb"]] += 1
    print(f"asked about {args.count} scenes, thumbs {thumbs}")


if __name__ == "__main__":
    main()
