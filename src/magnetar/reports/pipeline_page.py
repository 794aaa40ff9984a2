"""The page of a pipeline: what came out, every stage with its time and figures, the training, and its provenance."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from magnetar.evaluation.comparison.results import ComparisonResult
from magnetar.evaluation.intervals import Estimate
from magnetar.evaluation.suite import SuiteResult, read_suite
from magnetar.evaluation.suite.results import SECTION_KEYS
from magnetar.reports.comparison_files import read_comparison
from magnetar.reports.comparison_page import comparison_verdict
from magnetar.reports.drawing.bars import Measure, interval_bars
from magnetar.reports.drawing.canvas import Drawing, percent_words
from magnetar.reports.drawing.distribution import number_words
from magnetar.reports.drawing.heat import heat_map
from magnetar.reports.environment import page_environment
from magnetar.reports.pipeline_data import PipelineData, StepData, read_pipeline
from magnetar.reports.run_data import flat_settings
from magnetar.reports.samples import suite_view
from magnetar.reports.sections.blocks import Claim, Figure, Section, Table
from magnetar.reports.sections.matchups import WIN_RATE
from magnetar.reports.sections.training import shown_runs
from magnetar.reports.suite_page import PAGE, suite_claim, suite_provenance, suite_sections
from magnetar.reports.svg import Series, compact, line_chart
from magnetar.reports.text_files import write_text

__all__ = ["pipeline_page", "suite_groups", "write_pipeline_report"]

HOURS = Measure(
    "hours",
    0.0,
    0.0,
    0.0,
    compact,
    lambda value: f"{value:.2f} h",
    lambda one: "–" if one is None else f"{one.value:.2f}",
)
DIGEST_SHOWN = 12  # letters of a digest: enough to tell two apart by eye


def write_pipeline_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a pipeline.

    Args:
        folder: Where the pipeline wrote.
        out: Where to write; ``report.html`` in the folder by default.

    Returns:
        The page's path.

    Raises:
        DataError: The folder holds no stage, a file in it is damaged, or the page cannot be written.
    """
    folder = Path(folder)
    page = Path(out) if out is not None else folder / PAGE
    data = read_pipeline(folder)
    # A step that writes the page is under way while it does, and nobody who reads the page wants to know.
    others = [step for step in data.steps if step.finished or step.folder.resolve() != page.parent.resolve()]
    return write_text(page, pipeline_page(replace(data, steps=others)))


def pipeline_page(data: PipelineData) -> str:
    """The page's text.

    Args:
        data: What was found in the pipeline's folder.

    Returns:
        HTML with everything inline; sections without data are absent.
    """
    suites = suite_groups(data)
    comparisons = [read_comparison(path) for path in data.comparisons]
    sections = [
        replace(section, title=_named(suites, stage, section.title))
        for stage, one in suites.items()
        for section in suite_sections(one)
    ]
    views = {stage: suite_view(one) for stage, one in suites.items()}
    sections += [section for one in comparisons for section in _comparison_sections(one)]
    return (
        page_environment()
        .get_template("pipeline.html.j2")
        .render(
            title=f"Pipeline {data.name}",
            facts=_facts(data),
            claim=_claim(data, suites, comparisons),
            sections=[*sections, *_stage_sections(data)],
            runs=shown_runs(_runs(data)),
            samples=[
                replace(view, title=_named(suites, stage, view.title))
                for stage, view in views.items()
                if view is not None
            ],
            settings={step.name: flat_settings(_inputs(step, "settings")) for step in data.steps},
            versions=_last(data, "versions") or next((one.versions for one in suites.values()), {}),
            provenance=[*(table for one in suites.values() for table in suite_provenance(one)), *_provenance(data)],
        )
    )


def suite_groups(data: PipelineData) -> dict[str, SuiteResult]:
    """Suites of a pipeline by the name of their stage; those that go together are one.

    Stages that measure something else of the same policies on the same prompts (attacks, exploitability, benchmarks)
    belong to the suite before them. A suite on other prompts, or one that measured the same again, stands by itself.

    Args:
        data: What was found in the pipeline's folder.

    Returns:
        Suites, in the order of the stages.
    """
    names = {step.folder: step.name for step in data.steps}
    groups: dict[str, SuiteResult] = {}
    for path in data.suites:
        suite = read_suite(path)
        home = next((name for name, known in groups.items() if _goes_with(known, suite)), None)
        if home is not None:
            groups[home] = _joined(groups[home], suite)
        else:
            groups[names.get(path.parent, path.parent.name)] = suite
    return groups


def _goes_with(known: SuiteResult, new: SuiteResult) -> bool:
    """Whether names mean the same in both, prompts are the same, and nothing was measured in both."""
    if known.prompts and new.prompts and known.prompts != new.prompts:
        return False
    datasets = (_dataset(known), _dataset(new))
    if None not in datasets and datasets[0] != datasets[1]:
        return False
    if any(known.judges[name] != judge for name, judge in new.judges.items() if name in known.judges):
        return False
    if any(known.policies[name].spec != one.spec for name, one in new.policies.items() if name in known.policies):
        return False
    for section, keys in SECTION_KEYS.items():
        found = [{str([getattr(one, key) for key in keys]) for one in getattr(part, section)} for part in (known, new)]
        if found[0] & found[1]:
            return False
    return True


def _dataset(suite: SuiteResult) -> Any:
    """Where the prompts of a suite are from, or those of a section that a command put there by itself."""
    if suite.prompts is not None:
        return suite.prompts.dataset
    sections = (suite.settings.get(name) for name in SECTION_KEYS)
    return next((one["dataset"] for one in sections if isinstance(one, Mapping) and "dataset" in one), None)


def _joined(known: SuiteResult, new: SuiteResult) -> SuiteResult:
    records = {name: (*getattr(known, name), *getattr(new, name)) for name in (*SECTION_KEYS, "samples")}
    return SuiteResult(
        policies=_first(known.policies, new.policies),
        reference=known.reference or new.reference,
        judges=_first(known.judges, new.judges),
        prompts=known.prompts or new.prompts,
        notes=tuple(dict.fromkeys([*known.notes, *new.notes])),
        settings=_first(known.settings, new.settings),
        versions=_first(known.versions, new.versions),
        **records,
    )


def _named(suites: Mapping[str, SuiteResult], stage: str, title: str) -> str:
    """A heading, with the stage where there are several suites."""
    return f"{title} ({stage})" if len(suites) > 1 else title


def _first(known: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of both in their order; what both have is that of the first."""
    return {**known, **{name: value for name, value in new.items() if name not in known}}


def _claim(data: PipelineData, suites: Mapping[str, SuiteResult], comparisons: Sequence[ComparisonResult]) -> Claim:
    warnings = [_warning(step, data) for step in data.steps if not step.finished or step.outdated]
    claims = {stage: suite_claim(one) for stage, one in suites.items()}
    if claims:
        first = next((one for one in claims.values() if one.rate is not None), next(iter(claims.values())))
        told = [
            f"{stage}: {sentence}" if len(claims) > 1 else sentence
            for stage, one in claims.items()
            for sentence in one.sentences
        ]
        notes = dict.fromkeys(
            f"{stage}: {note}" if len(claims) > 1 else note for stage, one in claims.items() for note in one.warnings
        )
        return Claim(first.label, first.rate, told, first.muted, [*warnings, *notes])
    sentences = [comparison_verdict(one) for one in comparisons]
    return Claim(
        sentences=sentences or ["Nothing has been evaluated yet, so there is nothing to claim."], warnings=warnings
    )


def _warning(step: StepData, data: PipelineData) -> str:
    """What a reader should know of a step that is not as the pipeline would have it."""
    why = f" ({'; '.join(step.reasons)})" if step.reasons else ""
    shown = step.finished or any(step.folder in path.parents for path in data.suites)
    return f"{step.name}: {step.status}{why}.{' What this page shows of it was made before.' if shown else ''}"


def _facts(data: PipelineData) -> dict[str, Any]:
    finished = sum(step.finished for step in data.steps)
    hours = [step.hours for step in data.steps if step.hours is not None]
    facts: dict[str, Any] = {"Stages": f"{finished} of {len(data.steps)} finished"}
    if hours:
        facts["Work"] = f"{sum(hours):.1f} h" if sum(hours) >= 1 else f"{60 * sum(hours):.1f} min"
    git = _last(data, "git")
    if git.get("commit"):
        facts["Commit"] = f"{str(git['commit'])[:DIGEST_SHOWN]}{' with changes' if git.get('changed') else ''}"
    hardware = _last(data, "hardware")
    if hardware:
        facts["Hardware"] = ", ".join(
            f"{key} {value}" for key, value in flat_settings(hardware).items() if value != "null"
        )
    return facts


def _stage_sections(data: PipelineData) -> list[Section]:
    """Every stage with its time, seeds and figures."""
    rows = [
        [
            step.name,
            str(step.manifest.get("finished", ""))[:16].replace("T", " ") if step.finished else step.status,
            "–" if step.hours is None else f"{60 * step.hours:.1f}",
            ", ".join(f"{key} {value}" for key, value in step.part("seeds").items()) or "–",
            _results(step.part("results")),
        ]
        for step in data.steps
    ]
    timed = {step.name: Estimate(step.hours, None, None, 0.95, "exact") for step in data.steps if step.hours}
    figures = []
    if timed:
        figures.append(
            Figure(
                "Where the time went",
                interval_bars("Hours of each stage", timed, HOURS, [1] * len(timed)),
                unit="hours",
            )
        )
    figures += [figure for name, log in data.logs.items() for figure in _log_figures(name, log)]
    table = Table(["stage", "finished", "minutes", "seeds", "figures"], rows)
    return [Section("Stages", "", figures, [table])]


def _log_figures(name: str, log: Sequence[Mapping[str, Any]]) -> list[Figure]:
    """Loss of a supervised stage over its steps."""
    points = [
        (float(one["step"]), float(one["loss"])) for one in log if _number(one.get("loss")) and _number(one.get("step"))
    ]
    if len(points) < 2:
        return []
    places, losses = [place for place, _ in points], [loss for _, loss in points]
    svg = line_chart(f"Loss of {name} over steps", places, [Series("loss", list(losses))], from_zero=False)
    rows = tuple((f"{place:,.0f}", f"{loss:.3f}") for place, loss in points[:: max(1, len(points) // 20)])
    return [Figure(f"Loss of {name}", Drawing(svg, ("step", "loss"), rows), unit="over steps")]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _comparison_sections(result: ComparisonResult) -> list[Section]:
    """A comparison of training methods in short: bars, and everybody against everybody."""
    rates = {row.label: row.win_rate for row in result.rows if row.win_rate is not None}
    figures = [
        Figure(
            "Win rate against the reference",
            interval_bars("Win rate of each method against the reference", rates, WIN_RATE),
            unit=f"judge {result.eval_judge}",
        ),
        Figure(
            "Everybody against everybody",
            heat_map("Win rate of each row against each column", result.labels, result.labels, result.matrix),
            wide=True,
        ),
    ]
    intro = f"Each with a budget of {result.budget:,} {result.budget_unit}; {result.prompts:,} held-out prompts."
    return [Section("Methods compared", intro, figures=figures)]


def _runs(data: PipelineData) -> dict[str, Path]:
    """Folders of training runs by the names of their steps."""
    names = {step.folder: step.name for step in data.steps}
    return {
        names.get(folder) or next((names[up] for up in folder.parents if up in names), folder.name): folder
        for folder in data.runs
    }


def _provenance(data: PipelineData) -> list[Table]:
    """Data by digest, what each stage was made from, and the code."""
    read = [
        [step.name, what, str(digest)]
        for step in data.steps
        for what, digest in flat_settings(_inputs(step, "data")).items()
    ]
    tables = [Table(["stage", "data", "digest or revision"], read)] if read else []
    made = [
        [
            step.name,
            ", ".join(flat_settings(_inputs(step, "uses"))) or "–",
            str(step.manifest.get("inputs_digest", ""))[:DIGEST_SHOWN] or "–",
            str(step.manifest.get("outputs_digest", ""))[:DIGEST_SHOWN] or "–",
            str(step.part("git").get("commit") or "–")[:DIGEST_SHOWN],
        ]
        for step in data.steps
        if step.finished
    ]
    return [*tables, Table(["stage", "made from", "inputs", "outputs", "commit"], made)] if made else tables


def _inputs(step: StepData, name: str) -> Mapping[str, Any]:
    found = step.part("inputs").get(name)
    return found if isinstance(found, Mapping) else {}


def _last(data: PipelineData, name: str) -> Mapping[str, Any]:
    """An object of the manifest of the step that finished last."""
    return next((step.part(name) for step in reversed(data.steps) if step.part(name)), {})


def _results(results: Mapping[str, Any]) -> str:
    """Figures of a stage in words; what has the form of an estimate with its interval."""
    told = []
    for key, value in results.items():
        if isinstance(value, Mapping) and {"value", "low", "high"} <= set(value):
            words = _estimate_words(value)
        elif isinstance(value, Mapping):
            words = f"({_results(value)})"
        elif _number(value):
            words = compact(float(value)) if isinstance(value, float) else f"{value:,}"
        else:
            words = str(value)
        if value is not None:
            told.append(f"{key.replace('_', ' ')} {words}")
    return ", ".join(told) or "–"


def _estimate_words(value: Mapping[str, Any]) -> str:
    """A share in percent, anything else as a number, both with the interval if there is one."""
    ends = [value["value"], value["low"], value["high"]]
    if not _number(ends[0]):
        return "–"
    one = Estimate(float(ends[0]), ends[1], ends[2], float(value.get("confidence", 0.95)), "")
    share = all(0.0 <= end <= 1.0 for end in ends if _number(end))
    return percent_words(one) if share else number_words(one)
