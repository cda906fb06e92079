"""`sightline monitor`: is a served model still asked, and does it still answer, as at first? See `apps.monitor`.

The exit code is for alerting: 0 calm, 1 alarm, 2 bad input.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sightline.config import load_config
from sightline.data.terminal import Screen, say
from sightline.errors import InputError
from sightline.report.formatting import value_text

app = typer.Typer()

ALARM = 1


@app.command()
def monitor(  # noqa: PLR0913 - one parameter an option
    log: Annotated[Path, typer.Argument(help="Log of a served model: the directory of `serve --log`.")],
    baseline: Annotated[Path, typer.Option(help="What is usual: another log, or an evaluation directory.")],
    out: Annotated[Path, typer.Option(help="Directory to write: state, monitor.json, monitor.html.")],
    judge: Annotated[Path | None, typer.Option(help="YAML of a judge that looks at a sample of the answers.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Samples with the truth of pictures, for judges that know it.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Model, for judges that ask one.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of the watch.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Set one config key; may be repeated.")
    ] = None,
) -> None:
    """Read what is new in a log and say whether anything drifts; the exit code is 1 where something does.

    For example: sightline monitor LOG_DIR --baseline EVAL_DIR --out WATCH_DIR
    """
    from sightline.apps.monitor.run import PAGE, MonitorConfig
    from sightline.apps.monitor.run import monitor as run
    from sightline.records.hashing import hash_json

    settings = load_config(MonitorConfig, config, overrides or ())
    sampler, key = None, ""
    if judge is not None:
        from sightline.apps.monitor.baseline import samples_of
        from sightline.apps.monitor.judging import SampledJudge, Sampler, Truth

        sampled = load_config(SampledJudge, judge)
        known = Truth.read(truth)
        known.add((sample, folder) for _, sample, folder in samples_of(baseline, settings.benchmarks))
        sampler = Sampler(sampled, known, model, out / "work", settings.seed)
        key = hash_json([sampled.model_dump(mode="json", exclude={"batch_size", "most"}), sampler.identity])
    elif truth is not None or model is not None:
        raise InputError("--truth and --model are for a judge; name one with --judge, or leave them out")
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
