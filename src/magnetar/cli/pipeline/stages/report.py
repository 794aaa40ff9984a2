"""Stage `report`: one page of everything that the pipeline made."""

from typing import Any

from magnetar.cli.pipeline.work import Work
from magnetar.errors import ConfigError
from magnetar.pipeline.plan import Step
from magnetar.pipeline.references import Reference

__all__ = ["run", "steps"]

PAGE = "report.html"


def steps(work: Work) -> list[Step]:
    """The one step of the stage; it comes after all others and shows what there is."""
    own = dict(work.config.stages["report"])
    if own:
        raise ConfigError(f"report has no settings, got {', '.join(own)}; write 'report: true'")
    uses = {Reference("step", (name,)): name for name in work.folders}
    products = {reference: work.whole(name) for reference, name in uses.items()}
    return [
        Step(
            name="report",
            stage="report",
            folder=work.step_folder("report"),
            settings={},
            uses=products,
            optional=tuple(products),
            keeps=True,
        )
    ]


def run(step: Step, work: Work, resume: bool) -> dict[str, Any]:
    """Write the page."""
    import sys

    from magnetar.reports import write_pipeline_report

    del resume
    step.folder.mkdir(parents=True, exist_ok=True)
    page = write_pipeline_report(work.config.output_dir, step.folder / PAGE)
    print(f"page: {page}", file=sys.stderr)
    return {}
