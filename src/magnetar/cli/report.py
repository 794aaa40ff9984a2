"""`magnetar report`: the page of a run, a comparison, a suite or a pipeline, and its figures for a paper."""

import argparse
import sys
from pathlib import Path

from magnetar.cli.arguments import check_output, options_of, parse_known

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Find out what the folder holds, and write its page and figures.

    Args:
        argv: Arguments after ``magnetar report``.

    Returns:
        Exit status.

    Raises:
        MagnetarError: Anything that the user can mend.
    """
    args = _parse(argv)
    from magnetar.reports import write_report
    from magnetar.reports.folders import kind_of

    kind_of(args.folder)
    if args.out is not None:
        check_output(args.out)
    if args.figures is None or args.out is not None:
        print(f"report: {write_report(args.folder, args.out)}", file=sys.stderr)
    if args.figures is not None:
        from magnetar.reports.figures import write_figures

        for path in write_figures(args.folder, args.figures, forms=args.form):
            print(f"figure: {path}", file=sys.stderr)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="magnetar report",
        description="Write one self-contained page about what a folder holds: a training run, a comparison, a suite of "
        "evaluations or a pipeline; and the figures of a suite or a comparison as files for a paper.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="what another magnetar command wrote, or its .json file"
    )
    option = options_of(parser)
    option("out", "write the page here; beside what it is made from by default", type=Path, metavar="FILE")
    option("figures", "write figures into this folder (and no page, unless --out is given)", type=Path, metavar="DIR")
    option("form", "of the figures (default svg)", choices=("svg", "png", "pdf"), nargs="+", default=["svg"])
    return parse_known(parser, argv)
