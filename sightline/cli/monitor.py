"""`sightline monitor`: detect drift in the requests and answers of a served model; `apps.monitor` does the work.

Exit codes: 0 no drift, 1 drift detected, 2 invalid input.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sightline.cli.options import Overrides
from sightline.config import load_config
from sightline.data.terminal import Screen, say
from sightline.errors import InputError
from sightline.report.formatting import value_text

app = typer.Typer()

ALARM = 1


@app.command()
def monitor(  # noqa: PLR0913 - one parameter an option
    log: Annotated[Path, typer.Argument(help="Log directory of `sightline serve --log`.")],
    baseline: Annotated[Path, typer.Option(help="Baseline: another log, or an evaluation directory.")],
    out: Annotated[Path, typer.Option(help="Directory to write: state, monitor.json, monitor.html.")],
    judge: Annotated[Path | None, typer.Option(help="YAML file of a judge for a sample of the answers.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Samples with ground truth of the pictures, for judges that use it.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Model directory, for judges that use one.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the monitor config.")] = None,
    overrides: Overrides = None,
) -> None:
    """Test the new rows of a log for drift against a baseline; exits with code 1 if there is drift.

    For example: sightline monitor LOG_DIR --baseline EVAL_DIR --out WATCH_DIR
    """
    from sightline.apps.monitor.run import PAGE, MonitorConfig
    from sightline.apps.monitor.run import monitor as run
    from sightline.records.hashing import hash_json

    settings = load_config(MonitorConfig, config, overrides or ())
    sampler, key = None, ""
    if judge is not None:
        from sightline.apps.monitor.baseline import evaluation_samples
        from sightline.apps.monitor.judging import SampledJudge, Sampler, Truth

        sampled = load_config(SampledJudge, judge)
        known = Truth.read(truth)
        known.add((sample, folder) for _, sample, folder in evaluation_samples(baseline, settings.benchmarks))
        sampler = Sampler(sampled, known, model, out / "work", settings.seed)
        key = hash_json([sampled.model_dump(mode="json", exclude={"batch_size", "most"}), sampler.identity])
    elif truth is not None or model is not None:
        raise InputError("--truth and --model need a judge; add --judge, or leave them out")
    found = run(log, baseline, out, settings, sampler, key)
    table = Table("number", "baseline", "since", "n", "evidence", "state")
    for one in found.findings:
        values = (value_text(one.baseline, one.kind), value_text(one.now, one.kind), str(one.n))
        evidence = f"{one.evidence:.3g} of {one.bar:.0f}"
        table.add_row(one.title, *values, evidence, one.state, style="red" if one.state == "alarm" else None)
    Screen().print(table)
    say(f"monitor: {out / PAGE} ({found.new_rows} new rows, {len(found.alarms)} alarms)")
    if found.alarms:
        raise typer.Exit(ALARM)
