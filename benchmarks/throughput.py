"""Time whole training steps beside TRL's GRPOTrainer: same model, prompts, group, lengths, LoRA, precision and KL.

    python benchmarks/throughput.py                                    # 4 prompts × 4 responses × 64 tokens
    python benchmarks/throughput.py --prompt_tokens 400 --trl_rows 4   # long prompts
    python benchmarks/throughput.py --prompts 8 --responses 8 --trl_rows 16
    python benchmarks/throughput.py --contenders trl,magnetar,magnetar-vllm

Each contender is a process of its own that takes a step when it is its turn, so that noise of the machine falls on all
of them alike; ratios are taken round by round. `magnetar-vllm` needs the environment of `make test-vllm`, and then all
contenders run in it. The first steps (`--warmup`) are not counted.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORKER = Path(__file__).with_name("throughput_contenders.py")


@dataclass
class Contender:
    """A trainer in a process of its own, and what its steps cost."""

    name: str
    process: subprocess.Popen[str]
    steps: list[dict[str, Any]] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)

    @classmethod
    def start(cls, name: str, settings: dict[str, Any], log: Path) -> "Contender":
        """Start the process; what it prints goes to a file."""
        environment = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, str(WORKER), name, json.dumps(settings)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                bufsize=1,
                env=environment,
            )
        return cls(name, process)

    def step(self) -> dict[str, Any]:
        """Take one step, now."""
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        return self._answer()

    def end(self) -> None:
        """Ask for the peak memory and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.memory = self._answer()
        self.process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}; its messages are in its log file")
        return json.loads(line)

    @property
    def speeds(self) -> list[float]:
        """Tokens a second, step by step."""
        return [step["tokens"] / step["seconds"] for step in self.steps]


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def report(contenders: list[Contender]) -> str:
    """Tables of speeds, ratios to the first contender, stages and memory."""
    first = contenders[0]
    lines = [
        f"| trainer | tokens/s | seconds a step | ratio to {first.name} | peak memory (MiB) |",
        "|---|---|---|---|---|",
    ]
    for one in contenders:
        ratios = [a / b for a, b in zip(one.speeds, first.speeds, strict=True)]
        seconds = [step["seconds"] for step in one.steps]
        memory = ", ".join(f"{name.split('_')[1]} {value:.0f}" for name, value in one.memory.items())
        lines.append(f"| {one.name} | {spread(one.speeds)} | {spread(seconds)} | {spread(ratios)} | {memory} |")
    lines += ["", "| trainer | stage | seconds (median) | share |", "|---|---|---|---|"]
    for one in contenders:
        whole = statistics.median(step["seconds"] for step in one.steps)
        names = {name for step in one.steps for name in step["stages"]}
        medians = {name: statistics.median(step["stages"].get(name, 0.0) for step in one.steps) for name in names}
        rest = whole - sum(medians.values())
        for name, seconds in [*sorted(medians.items(), key=lambda item: -item[1]), ("all else", rest)]:
            lines.append(f"| {one.name} | {name} | {seconds:.2f} | {seconds / whole:.0%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", default="trl,magnetar", help="in this order; ratios are to the first")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--response_tokens", type=int, default=64)
    parser.add_argument("--prompt_tokens", type=int, default=0, help="about this long; 0 for the embedded prompts")
    parser.add_argument("--dtype", default="float32", help="of the weights: float32 or bfloat16")
    parser.add_argument("--kl_coef", type=float, default=0.04, help="KL penalty to the reference; its pass is run")
    parser.add_argument("--method", default="grpo", help="Magnetar's method")
    parser.add_argument(
        "--trl_rows", type=int, default=0, help="responses in one of TRL's passes, where all (0) take too much memory"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1, help="steps of each that are not counted")
    parser.add_argument("--logs", type=Path, default=Path("runs/throughput"), help="folder for what trainers print")
    parser.add_argument("--json", type=Path, help="also write every step here")
    args = parser.parse_args()
    args.logs.mkdir(parents=True, exist_ok=True)
    names = args.contenders.split(",")
    settings = {name: value for name, value in vars(args).items() if isinstance(value, int | float | str)}
    contenders = [Contender.start(name, settings, args.logs / f"{name}.log") for name in names]
    for number in range(args.warmup + args.rounds):
        for one in contenders:
            step = one.step()
            if number >= args.warmup:
                one.steps.append(step)
            print(f"round {number} {one.name}: {step['tokens'] / step['seconds']:.1f} tokens/s", file=sys.stderr)
    for one in contenders:
        one.end()
    if args.json:
        kept = {one.name: {"steps": one.steps, "memory": one.memory} for one in contenders}
        args.json.write_text(json.dumps({"settings": settings, "contenders": kept}, indent=1))
    print(report(contenders))


if __name__ == "__main__":
    main()
