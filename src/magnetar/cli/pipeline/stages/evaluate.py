"""Stage `evaluate`: what `magnetar eval --config` measures, of the policies and judges that the pipeline makes."""

from collections.abc import Mapping
from typing import Any

from magnetar.cli.pipeline.stages.policies import MISSING, chosen_policies, present, reference_policy
from magnetar.cli.pipeline.work import JUDGE_FORMS, Work
from magnetar.errors import ConfigError, MagnetarError, unknown_name
from magnetar.pipeline.plan import Step
from magnetar.pipeline.references import Reference, parse_reference, references_in

__all__ = ["run", "run_suite", "steps", "suite_step"]


def steps(work: Work) -> list[Step]:
    """One step for each suite: the stage's settings are those of one, or those of several by name."""
    own = dict(work.config.stages["evaluate"])
    if not own or "prompts" in own or "judges" in own:
        return [suite_step(work, "evaluate", "evaluate", own, {})]
    found = []
    for name, settings in own.items():
        if not isinstance(settings, Mapping):
            raise ConfigError(
                f"evaluate: {name} is {settings!r}, expected the settings of a suite (judges, prompts, …), or several "
                "suites by name"
            )
        found.append(suite_step(work, f"evaluate/{name}", "evaluate", settings, {}))
    return found


def suite_step(work: Work, name: str, stage: str, settings: Mapping[str, Any], fixed: Mapping[str, Any]) -> Step:
    """A step that evaluates a suite.

    Args:
        work: Of the pipeline.
        name: Of the step.
        stage: That it belongs to.
        settings: Keys of the suite, as the configuration has them.
        fixed: Keys of the suite that the stage sets.

    Raises:
        MagnetarError: Settings that cannot work.
    """
    from magnetar.evaluation.suite.config import KEYS

    own, where = dict(settings), name.replace("/", ": ")
    for key in own:
        if key not in KEYS and key != "unfinished":
            raise ConfigError(f"{where}: {unknown_name('field', key, (*KEYS, 'unfinished'))}")
        if key == "output_dir" or key in fixed:
            raise ConfigError(f"{where}: {key} is set by the stage; remove it there")
    if own.get("unfinished", "error") not in MISSING:
        raise ConfigError(f"{where}: {unknown_name('unfinished', str(own['unfinished']), MISSING)}")
    policies = chosen_policies(work, own.get("policies"), where)
    judges = own.get("judges")
    if not isinstance(judges, Mapping) or not judges:
        raise ConfigError(f"{where}: judges is {judges!r}, expected a mapping of label: judge")
    chosen = {**own, **fixed, "policies": policies, "judges": dict(judges)}
    reference = reference_policy(work, policies, own.get("reference"))
    if reference is not None:
        chosen["reference"] = reference
    if "dtype" in work.config.settings:
        chosen["sampling"] = {"dtype": work.config.settings["dtype"], **(own.get("sampling") or {})}
    uses = work.used(chosen, where)
    _check(chosen, work, where)
    leave_out = chosen.pop("unfinished", "error") == "leave_out"
    optional = [one for one in uses if one.stage == "train"] if leave_out else []
    return Step(
        name=name,
        stage=stage,
        folder=work.step_folder(name),
        settings=chosen,
        uses=uses,
        optional=optional,
        data=_data(chosen, work, policies),
        keeps=True,
        seeds={"sampling": (chosen.get("sampling") or {}).get("seed", 0)},
    )


def run(step: Step, work: Work, resume: bool) -> dict[str, Any]:
    """Measure, and write ``suite.json`` and its tables."""
    del resume  # answers are kept in any case
    return run_suite(step, work)


def run_suite(step: Step, work: Work) -> dict[str, Any]:
    """Evaluate the suite of a step.

    Returns:
        For each policy its win rate against the reference and its mean cost, as plain values.
    """
    import sys

    from magnetar.evaluation.suite.config import SuiteConfig
    from magnetar.evaluation.suite.run import evaluate_suite
    from magnetar.evaluation.suite.tables import suite_tables, table_text, write_tables
    from magnetar.reports import write_suite_report

    kept, left_out = present(step.settings["policies"], step.uses, work.finished)
    for name in left_out:
        print(f"{step.name}: left out, since it is not finished: {name}", file=sys.stderr, flush=True)
    reference = step.settings.get("reference")
    if reference is not None and reference not in kept:
        raise ConfigError(
            f"{step.name}: the reference {reference!r} is not finished, so nothing can be compared with it"
        )
    config = SuiteConfig.from_dict(_resolved({**step.settings, "policies": kept}, step, work))
    result = evaluate_suite(config, progress=not work.config.settings.get("disable_tqdm", False))
    write_tables(result, config.output_dir)
    write_suite_report(config.output_dir)
    print("\n\n".join(table_text(table) for table in suite_tables(result)))
    found: dict[str, Any] = {"prompts": None if result.prompts is None else result.prompts.count}
    for record in result.matchups:
        if record.opponent == reference:
            found[f"{record.policy} against {reference}, judge {record.judge}"] = record.win_rate.value
    for record in result.costs:
        found[f"mean cost of {record.policy}, judge {record.judge}"] = record.mean_cost.value
    return found


def _resolved(settings: Mapping[str, Any], step: Step, work: Work) -> dict[str, Any]:
    """The suite's configuration with paths in place of references."""
    found = {**settings, "output_dir": str(step.folder)}
    found["policies"] = {
        label: [work.place(spec) for spec in specs] if len(specs) > 1 else work.place(specs[0])
        for label, specs in settings["policies"].items()
    }
    found["judges"] = {label: _judge(value, work) for label, value in settings["judges"].items()}
    found["prompts"] = _prompts(settings["prompts"], work)
    tournament = found.get("tournament")
    if isinstance(tournament, Mapping):
        # The kept policies of a run are those of one seed: of the first, unless the reference says otherwise.
        chosen = {label: work.seeds_of(one)[0] for label, one in (tournament.get("runs") or {}).items()}
        runs = {label: work.place(one) for label, one in chosen.items() if not _unfinished(one, work)}
        labels = tournament.get("policies")
        kept = None if labels is None else [label for label in labels if label in settings["policies"]]
        found["tournament"] = {**tournament, "runs": runs, **({} if kept is None else {"policies": kept})}
    return found


def _unfinished(value: Any, work: Work) -> bool:
    return parse_reference(value) is not None and str(parse_reference(value)) not in work.finished


def _judge(value: Any, work: Work) -> Any:
    if isinstance(value, Mapping) and "judge" in value:
        return {**value, "judge": work.judge(value["judge"])}
    return work.judge(value)


def _prompts(value: Any, work: Work) -> Any:
    if isinstance(value, Mapping):
        return {**value, "dataset": work.place(value.get("dataset"))}
    return work.place(value)


def _check(settings: Mapping[str, Any], work: Work, stage: str) -> None:
    """Check the suite's form with stand-ins for what is not made yet."""
    from magnetar.evaluation.suite.config import SuiteConfig

    prompts = settings.get("prompts")
    work.check_form(prompts.get("dataset") if isinstance(prompts, Mapping) else prompts, ("data",), f"{stage}: prompts")
    judges = {}
    for label, value in settings["judges"].items():
        spec = value["judge"] if isinstance(value, Mapping) and "judge" in value else value
        work.check_form(spec, JUDGE_FORMS, f"{stage}: judges: {label}")
        judges[label] = _stand_in(value, spec, work)
    stand_in = {**settings, "output_dir": str(work.config.output_dir), "judges": judges}
    stand_in.pop("unfinished", None)
    stand_in["policies"] = {
        label: [spec for spec in specs if not references_in([spec])] or "demo"
        for label, specs in settings["policies"].items()
    }
    tournament = stand_in.get("tournament")
    if isinstance(tournament, Mapping):
        stand_in["tournament"] = {key: value for key, value in tournament.items() if key != "runs"}
    try:
        SuiteConfig.from_dict(stand_in)
    except MagnetarError as error:
        raise type(error)(f"{stage}: {error}") from error


def _stand_in(value: Any, spec: Any, work: Work) -> Any:
    """A judge of the same kind by a name that needs no folder."""
    found = [work.products[str(one)].form for one in references_in([spec])]
    if not found:
        return value
    return {**value, "judge": f"{found[0]}:not/made"} if spec is not value else f"{found[0]}:not/made"


def _data(settings: Mapping[str, Any], work: Work, policies: Mapping[str, list[Any]]) -> dict[str, str]:
    """Contents from elsewhere: prompts, judges and policies that the pipeline does not make."""
    data = {}
    prompts = settings["prompts"]
    dataset = prompts.get("dataset") if isinstance(prompts, Mapping) else prompts
    if parse_reference(dataset) is None:
        data[str(dataset)] = work.contents.dataset(str(dataset))
    for label, value in settings["judges"].items():
        spec = value["judge"] if isinstance(value, Mapping) and "judge" in value else value
        data |= work.judge_contents(spec, f"judge {label}")
    for specs in policies.values():
        for spec in specs:
            if isinstance(spec, str) and not isinstance(parse_reference(spec), Reference):
                data[f"policy {spec}"] = work.contents.policy(spec)
    return data
