"""`magnetar`: one thin command per module, each imported only when it is called."""

import os
import sys
from importlib import import_module

from magnetar.errors import MagnetarError, unknown_name

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "demo": ("magnetar.cli.demo", "align the embedded model on the embedded prompts, start to finish"),
    "pipeline": (
        "magnetar.cli.pipeline.command",
        "from a base model to an aligned one to a page: all stages of one file",
    ),
    "sft": ("magnetar.cli.sft", "fine-tune a language model on demonstrations, before self-play"),
    "train": ("magnetar.cli.train", "align a language model by self-play"),
    "compare": ("magnetar.cli.compare", "train several methods under one budget, and compare what comes out"),
    "eval": ("magnetar.cli.evaluate", "play two policies against each other under a judge"),
    "exploit": ("magnetar.cli.exploit", "how much an opponent could win against a policy, from below"),
    "benchmark": ("magnetar.cli.benchmark", "measure models on general benchmarks (LM Evaluation Harness)"),
    "attacks": ("magnetar.cli.attacks", "safety under attack: list attacks, write attacked prompts, measure policies"),
    "preference": ("magnetar.cli.preference", "train a preference model: pairwise, reward, cost or general"),
    "judge": ("magnetar.cli.judge", "let a judge answer a file of pairs, and measure it"),
    "report": (
        "magnetar.cli.report",
        "write the page of a run, a comparison, a suite or a pipeline; figures for a paper",
    ),
    "agreement": ("magnetar.cli.agreement", "how far two judges, or a judge and labels, agree"),
    "size": ("magnetar.cli.size", "what a run takes in GPU memory, and what to change if that is too much"),
    "methods": ("magnetar.cli.methods", "list the methods, and what each converges to"),
    "games": ("magnetar.cli.games", "run methods on exact games"),
}

WITH_MODELS = (
    *("demo", "pipeline", "sft", "train", "compare", "eval", "exploit", "benchmark", "attacks"),
    *("preference", "judge", "agreement", "size"),
)


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments after the program's name; those of the process by default.

    Returns:
        Exit status: 0 done, 2 an error that the user can mend, 130 or 143 stopped by SIGINT or SIGTERM.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if argv[0] in ("-V", "--version"):
        import magnetar

        print(f"magnetar {magnetar.__version__}")
        return 0
    try:
        if argv[0] not in COMMANDS:
            print(f"magnetar: {unknown_name('command', argv[0], COMMANDS)}", file=sys.stderr)
            return 2
        if argv[0] in WITH_MODELS:
            from magnetar.cli.console import quiet_libraries

            quiet_libraries()
        return import_module(COMMANDS[argv[0]][0]).main(argv[1:])
    except MagnetarError as error:
        print(f"magnetar {argv[0]}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has seen enough, as `head` does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the interpreter flushes it when it ends
        return 0
    except KeyboardInterrupt as error:
        print(f"magnetar {argv[0]}: {str(error) or 'stopped; what is finished is kept'}", file=sys.stderr)
        return 128 + getattr(error, "signal_number", 2)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return f"usage: magnetar COMMAND [options]\n\n{rows}\n\nmagnetar COMMAND --help lists the options of a command."


if __name__ == "__main__":  # for launchers that start modules: `accelerate launch -m magnetar.cli.main train ...`
    status = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # Threads of the process group, though it is closed, may abort an interpreter that ends on a busy machine.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
