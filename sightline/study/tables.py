"""The outcome of a study as files and tables: `results.json`, `results.csv`, `report.md`, with the same numbers.

It computes nothing. Numbers are written for people by `report.formatting`.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from sightline.records.store import replacing, write_json
from sightline.study.claims import ClaimFinding
from sightline.study.config import BASE
from sightline.study.outcome import Cost, Finding, Outcome
from sightline.study.report.formatting import difference_text, interval_text, value_text

JSON, CSV, MARKDOWN = "results.json", "results.csv", "report.md"
HOLM = 0.05  # the share of studies without any effect in which one star or more would stand
_COLUMNS = ("arm", "benchmark", "metric", "unit", "value", "value_low", "value_high", "n", "unscored")
_DIFFERENCES = ("difference", "difference_low", "difference_high", "p", "p_holm", "verdict", "by_seed")


def write_outcome(outcome: Outcome, out: Path) -> None:
    """Write all three files into `out`; same outcome, same bytes."""
    write_json(out / JSON, outcome.model_dump(mode="json"))
    for name, text in ((CSV, csv_text(outcome)), (MARKDOWN, markdown_text(outcome))):
        with replacing(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")


def csv_text(outcome: Outcome) -> str:
    """One row a metric and arm."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow((*_COLUMNS, *_DIFFERENCES))
    for found in outcome.findings:
        value, difference = found.value, found.difference
        low, high = value.ci95 or (None, None)
        less, more = (difference.ci95 if difference else None) or (None, None)
        writer.writerow(
            (
                *(found.arm, found.benchmark, found.metric, found.unit),
                *(value.value, low, high, value.n, value.unscored),
                *(difference.value if difference else None, less, more, found.p, found.p_holm, found.verdict),
                " ".join("" if seed is None else repr(seed) for seed in found.by_seed),
            )
        )
    return file.getvalue()


def markdown_text(outcome: Outcome) -> str:
    """A table a benchmark, then what each arm cost."""
    lines = [f"# {_plain(outcome.name)}", ""]
    if outcome.about:
        lines += [_plain(outcome.about), ""]
    lines += [
        f"Seeds: {', '.join(map(str, outcome.seeds))}. Differences are to `{_plain(outcome.baseline)}`, paired by image"
        " and seed; shares in percent and points; brackets are 95 % intervals over images and seeds. Bold: the interval"
        " excludes 0; a star: so does Holm's correction over all differences of the study, at 5 %.",
        "",
    ]
    lines += [f"- {sentence}" for sentence in outcome.unequal]
    lines += [f"- Not done with every seed, so left out: {', '.join(outcome.missing)}."] if outcome.missing else []
    if outcome.claims:
        lines += ["", "## Claims", "", *_claims_table(outcome.claims)]
    for benchmark in dict.fromkeys(found.benchmark for found in outcome.findings):
        lines += ["", f"## {_plain(benchmark)}", "", *_benchmark_table(outcome, benchmark)]
    lines += ["", "## Cost", "", *_cost_table(outcome.costs)]
    return "\n".join(lines) + "\n"


def _claims_table(claims: Sequence[ClaimFinding]) -> Iterator[str]:
    yield "| claim | there | ours | |"
    yield "| --- | --- | --- | --- |"
    for claim in claims:
        ours = f"{claim.arm} - {claim.against}, {claim.benchmark}/{claim.metric}: {claim.ours()}" if claim.unit else ""
        yield f"| {_plain(claim.says)} | {_plain(claim.there)} | {_plain(ours)} | {claim.word} |"


def _benchmark_table(outcome: Outcome, benchmark: str) -> Iterator[str]:
    found = {(f.arm, f.metric): f for f in outcome.findings if f.benchmark == benchmark}
    arms, metrics = list(dict.fromkeys(arm for arm, _ in found)), list(dict.fromkeys(metric for _, metric in found))
    yield "| arm | " + " | ".join(map(_plain, metrics)) + " |"
    yield "| --- " * (len(metrics) + 1) + "|"
    for arm in arms:
        yield f"| {_plain(arm)} | " + " | ".join(_cell(found[arm, metric]) for metric in metrics) + " |"


def _cell(found: Finding) -> str:
    value = value_text(found.value.value, found.unit)
    if found.difference is None:
        return f"{value} {interval_text(found.value.ci95, found.unit, signed=False)}"
    change = difference_text(found.difference.value, found.unit)
    told = f"{value}, {change} ({interval_text(found.difference.ci95, found.unit, signed=True)})"
    star = " \\*" if found.p_holm is not None and found.p_holm < HOLM else ""
    return f"**{told}**{star}" if found.verdict in ("better", "worse") else told


def _cost_table(costs: Sequence[Cost]) -> Iterator[str]:
    names = ("pair_seconds", "train_seconds", "eval_seconds", "rows", "steps", "answer_tokens")
    yield "| arm | " + " | ".join(name.replace("_", " ") for name in names) + " |"
    yield "| --- " * (len(names) + 1) + "|"
    for cost in costs:
        cells = ("" if (value := getattr(cost, name)) is None else f"{value:,.0f}" for name in names)
        yield f"| {_plain(cost.arm)} | " + " | ".join(cells) + " |"


def _plain(text: str) -> str:
    """Text that stays within its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def terminal_rows(outcome: Outcome, metrics: Sequence[tuple[str, str]] = ()) -> Iterator[tuple[str, ...]]:
    """(arm, benchmark, metric, value, difference, interval, verdict) of the metrics named, or of the primary ones."""
    for found in outcome.findings:
        if (found.benchmark, found.metric) in metrics or (not metrics and found.primary):
            value = value_text(found.value.value, found.unit)
            if found.difference is None:
                told: tuple[str, ...] = (BASE if found.arm == BASE else "", "", "")
                told = ("", interval_text(found.value.ci95, found.unit, signed=False), "baseline")
            else:
                interval = interval_text(found.difference.ci95, found.unit, signed=True)
                told = (difference_text(found.difference.value, found.unit), interval, found.verdict)
            yield (found.arm, found.benchmark, found.metric, value, *told)
