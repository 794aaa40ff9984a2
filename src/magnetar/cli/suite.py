"""`magnetar eval --config`: policies × judges × prompts, measured once, written as figures, tables and a page."""

import argparse
import sys
from pathlib import Path
from typing import Any

from magnetar.cli.arguments import options_of, parse_known
from magnetar.cli.stop_signals import stop_signals

__all__ = ["main"]

STOPPED = "stopped; answers of policies and judges are kept, repeat the command to go on"


def main(argv: list[str]) -> int:
    """Check the whole configuration, measure what is missing, and write the tables.

    Args:
        argv: Arguments after ``magnetar eval``.

    Returns:
        Exit status.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    asked = _parse(argv)
    from magnetar.cli.run_options import read_yaml
    from magnetar.evaluation.suite.config import KEYS, SuiteConfig

    values: dict[str, Any] = read_yaml(asked.config, set(KEYS), "eval")
    for name in ("output_dir", "missing"):
        if getattr(asked, name) is not None:
            values[name] = getattr(asked, name)
    config = SuiteConfig.from_dict(values)

    from magnetar.evaluation.suite.files import SUITE_FILE
    from magnetar.evaluation.suite.run import evaluate_suite
    from magnetar.evaluation.suite.tables import suite_tables, table_text, write_tables

    with stop_signals():
        try:
            result = evaluate_suite(config, progress=not asked.quiet)
        except KeyboardInterrupt as stop:
            stop.args = (STOPPED,)
            raise
    from magnetar.reports import write_suite_report

    files = write_tables(result, config.output_dir)
    print("\n\n".join(table_text(table) for table in suite_tables(result)))
    for note in result.notes:
        print(f"note: {note}")
    print(f"figures: {config.output_dir / SUITE_FILE}", file=sys.stderr)
    print(f"tables: {files[-1]}, {files[0].parent}", file=sys.stderr)
    print(f"page: {write_suite_report(config.output_dir)}", file=sys.stderr)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="magnetar eval --config",
        description="Let several policies answer the same prompts, and ask several judges about the answers: who beats "
        "whom, what they cost, and who is left in the Nash average. Repeat the command to go on after an interruption, "
        "or after adding policies or judges to the file: what is finished is kept.",
        allow_abbrev=False,
    )
    option = options_of(parser)
    option("config", "YAML file of the suite; see docs/evaluation.md", required=True, type=Path, metavar="FILE")
    option("output_dir", "instead of the file's", metavar="DIR")
    option("missing", "prompts without an answer: 'error', or 'skip' them for everybody", choices=("error", "skip"))
    option("quiet", "no progress bars", action="store_true")
    return parse_known(parser, argv)
