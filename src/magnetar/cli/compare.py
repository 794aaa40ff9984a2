"""`magnetar compare`: several methods and seeds under one budget, then a round robin on held-out prompts."""

import argparse
import sys
from pathlib import Path

from magnetar.cli.arguments import options_of, parse_known
from magnetar.cli.stop_signals import stop_signals
from magnetar.errors import ConfigError

__all__ = ["main"]

SAME_JUDGE = (
    "note: eval_judge is not given, so the judge that methods learn from also compares them: whoever finds its weak "
    "spots wins"
)
STOPPED = "stopped while comparing; what was answered and judged so far is kept: repeat the command to go on"
INCOMPLETE = 1  # exit status when a run that was asked for is not finished


def main(argv: list[str]) -> int:
    """Check the whole configuration, train what is missing, play, and write the tables.

    Args:
        argv: Arguments after ``magnetar compare``.

    Returns:
        Exit status: 0, or 1 when a run that was asked for failed or is under way elsewhere.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    asked = _parse(argv)
    from magnetar.cli.comparison.config import load_comparison
    from magnetar.cli.comparison.evaluate import evaluate, held_out_prompts
    from magnetar.cli.comparison.plan import plan_runs, selected_runs
    from magnetar.cli.comparison.runs import check_settings, train_runs, unfinished
    from magnetar.reports.comparison_files import comparison_markdown

    config = load_comparison(asked.config)
    runs = plan_runs(config)
    for run in runs:
        check_settings(run)
    chosen = selected_runs(runs, asked.only, asked.seed)
    prompts = None if asked.no_evaluation else held_out_prompts(config, runs[0].parsed()[1])
    if prompts is not None and config.eval_judge is None:
        print(SAME_JUDGE, file=sys.stderr)
    with stop_signals():
        if not asked.evaluate_only:
            train_runs(chosen, config)
        try:
            result = None if prompts is None else evaluate(runs, config, prompts)
        except KeyboardInterrupt as stop:
            stop.args = (STOPPED,)
            raise
    if result is not None:
        print(comparison_markdown(result))
        print(f"page: {config.output_dir / 'comparison.html'}", file=sys.stderr)
    missing = unfinished(chosen)
    for line in missing:
        print(f"missing: {line}", file=sys.stderr)
    return INCOMPLETE if missing else 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="magnetar compare",
        description="Train several methods, with several seeds each, under one budget; then let all of them and the "
        "reference answer held-out prompts and have a judge compare every two. Repeat the command to go on after an "
        "interruption, or after adding labels or seeds to the file: what is finished is kept.",
        allow_abbrev=False,
    )
    option = options_of(parser)
    option("config", "YAML file of the comparison; see docs/comparing.md", required=True, type=Path, metavar="FILE")
    option("only", "train the runs of these labels only", nargs="+", metavar="LABEL")
    option("seed", "train the runs of these seeds only", nargs="+", type=int, metavar="K")
    option("no_evaluation", "train and stop there", action="store_true")
    option("evaluate_only", "train nothing; compare the runs that are finished", action="store_true")
    asked = parse_known(parser, argv)
    if asked.no_evaluation and asked.evaluate_only:
        raise ConfigError("--no_evaluation and --evaluate_only together leave nothing to do; give one of them")
    return asked
