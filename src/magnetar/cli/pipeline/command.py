"""`magnetar pipeline`: SFT, preference models, self-play, evaluation and report, by one file."""

import argparse
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import magnetar
from magnetar.cli.arguments import options_of, parse_known
from magnetar.cli.pipeline.config import pipeline_config, read_configuration
from magnetar.cli.pipeline.presets import PRESETS, preset_file
from magnetar.cli.stop_signals import stop_signals
from magnetar.errors import ConfigError
from magnetar.pipeline.plan import Step, StepState

if TYPE_CHECKING:
    from magnetar.cli.pipeline.work import Work

__all__ = ["main"]

INCOMPLETE = 1  # exit status when a step that was asked for is not finished
MEMORY = ".digests.json"
WORDS = {
    "finished": "finished",
    "run": "would run",
    "resume": "would go on",
    "perhaps": "would run if",
    "skipped": "skipped",
    "blocked": "blocked",
}


def main(argv: list[str]) -> int:
    """Check the whole configuration, say what there is to do, and do it.

    Args:
        argv: Arguments after ``magnetar pipeline``.

    Returns:
        Exit status: 0; 1 when a step failed.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    asked = _parse(argv)
    if asked.presets:
        _list_presets()
        return 0
    file = _file(asked)
    if asked.print_config:
        print(file.read_text(encoding="utf-8"), end="")
        return 0
    found = read_configuration(file, asked.set or [])
    if asked.output_dir is not None:
        found["output_dir"] = asked.output_dir

    from magnetar.cli.pipeline.contents import Contents
    from magnetar.cli.pipeline.run import only_pipeline, run_steps
    from magnetar.cli.pipeline.selection import skipped_steps
    from magnetar.cli.pipeline.stages import steps_of
    from magnetar.cli.pipeline.work import Work
    from magnetar.pipeline.digests import FileDigests
    from magnetar.pipeline.plan import plan_states

    config = pipeline_config(found)
    digests = FileDigests(config.output_dir / MEMORY)
    work = Work(config, Contents(digests, ask_hub=not asked.dry_run))
    steps = steps_of(work)
    skipped = skipped_steps(steps, asked.only, asked.skip, asked.start)
    states = plan_states(steps, magnetar.__version__, digests, skipped=skipped, thorough=asked.verify)
    _refuse_blocked(states)
    _note_other_code(states)
    if asked.dry_run:
        print(plan_text(steps, states, {step.name for step in steps if _is_put_back(step, states, work)}))
        if work.contents.unknown:
            names = ", ".join(work.contents.unknown)
            print(f"note: --dry_run does not ask the Hub, where these have to be: {names}", file=sys.stderr)
        return 0
    work.contents.require_known()
    with only_pipeline(config.output_dir), stop_signals():
        return 0 if run_steps(steps, work, skipped, argv, thorough=asked.verify) else INCOMPLETE


def plan_text(steps: list[Step], states: Mapping[str, StepState], put_back: Collection[str] = ()) -> str:
    """What would happen to each step, and why: a line for each reason.

    Args:
        steps: All of them.
        states: Of each.
        put_back: Names of those that were made before from the same inputs, or begun.
    """
    width = max(len(step.name) for step in steps)
    lines = []
    for step in steps:
        state = states[step.name]
        first, *rest = state.reasons or ("",)
        rest += ["made or begun before from the same inputs: that would be put back"] * (step.name in put_back)
        told = f"{WORDS[state.status]:<13}{first}".rstrip()
        lines.append(f"{step.name:<{width}}  {told}")
        lines += [" " * (width + 2 + 13) + reason for reason in rest]
    return "\n".join(lines)


def _is_put_back(step: Step, states: Mapping[str, StepState], work: "Work") -> bool:
    from magnetar.cli.pipeline.earlier import earlier_place

    return states[step.name].status == "run" and earlier_place(step, states, work) is not None


def _note_other_code(states: Mapping[str, StepState]) -> None:
    """Say of what is kept with what other code it was made: only Magnetar's version is a reason to make it again."""
    from magnetar.cli.pipeline.provenance import git_state, made_otherwise
    from magnetar.evaluation import package_versions

    kept = [state.manifest for state in states.values() if state.status == "finished" and state.manifest is not None]
    told = made_otherwise(kept, git_state(), package_versions())
    if told:
        print(
            f"note: of {len(kept)} finished steps {'; '.join(told)}; they are kept, remove a step's folder to make it "
            "again",
            file=sys.stderr,
        )


def _refuse_blocked(states: Mapping[str, StepState]) -> None:
    for name, state in states.items():
        if state.status == "blocked":
            raise ConfigError(
                f"{name} cannot run: {'; '.join(state.reasons)}. Run that stage too, or skip {name} as well"
            )


def _file(asked: argparse.Namespace) -> Path:
    if (asked.config is None) == (asked.preset is None):
        raise ConfigError(
            "give a file with --config FILE, or the name of a preset with --preset NAME (--presets lists them)"
            if asked.config is None
            else "--config and --preset are both given; write the preset to a file with --print_config, and change it"
        )
    return preset_file(asked.preset) if asked.config is None else asked.config


def _list_presets() -> None:
    width = max(map(len, PRESETS))
    for name, text in PRESETS.items():
        print(f"{name:<{width}}  {text}")
    print(
        f"\nmagnetar pipeline --preset {next(iter(PRESETS))} --print_config > pipeline.yaml   writes one to start from"
    )


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="magnetar pipeline",
        description="SFT, preference models, self-play, evaluation and report, by one file. Repeat the command to go "
        "on after an interruption or a change: what is finished and unchanged is kept, see docs/pipeline.md.",
        allow_abbrev=False,
    )
    option = options_of(parser)
    option("config", "YAML file of the pipeline", type=Path, metavar="FILE")
    option("preset", "a configuration that comes with Magnetar, instead of a file", metavar="NAME")
    option("presets", "list the presets, and stop", action="store_true")
    option("print_config", "print the file or preset, and stop", action="store_true")
    option("set", "change one entry, such as train.seeds=[0]", action="append", metavar="KEY=VALUE")
    option("output_dir", "write there instead of the file's output_dir", metavar="DIR")
    option("only", "run these stages or steps only, such as train or preference/cost", nargs="+", metavar="STEP")
    option("skip", "do not run these; what they made before is used", nargs="+", metavar="STEP")
    parser.add_argument("--from", dest="start", help="do not run the stages before this one", metavar="STAGE")
    option("dry_run", "say what would run, and why; run nothing", action="store_true")
    option("verify", "read all finished outputs again, to see whether they were changed", action="store_true")
    asked = parse_known(parser, argv)
    if asked.dry_run and asked.print_config:
        print("note: --print_config prints the file and plans nothing", file=sys.stderr)
    return asked
