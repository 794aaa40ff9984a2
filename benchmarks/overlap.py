"""What it brings to ask the judge on threads: the same updates with and without, in turn.

    python benchmarks/overlap.py                                # both judges, some ten minutes on two CPU cores
    python benchmarks/overlap.py --judges endpoint --latency 1  # a slower endpoint
    python benchmarks/overlap.py --judges endpoint --base_url http://localhost:8000/v1 --served NAME  # a real one

The endpoint is a server in a process of its own that waits a stated time before it answers each request, and says A or
B by a digest of the question: it takes the time of a served model and none of this machine's processors. The panel is
the embedded one, in this process, on the processors that the policy is on.

In a run the updates take turns, one with threads and one without, so that both see the same load of a shared machine;
the next run does it the other way round. Both ways give the same weights, bit for bit, which is checked, so that each
update of one run is the same work as that of the other.

Prints one line a run, then one table a judge, and with --write keeps the measurements under benchmarks/results/overlap.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from magnetar.data.demo import demo_prompts
from magnetar.judges import Judge, build_judge
from magnetar.modeling.loading import load_tokenizer
from magnetar.training import NashConfig, NashTrainer
from magnetar.training.gathering import judging_for

RESULTS = Path(__file__).parent / "results" / "overlap"
STAGES = ("rollout", "judge", "waiting", "logprobs", "update")


@dataclass(frozen=True)
class Run:
    """One training; the first update, which loads and warms up, is left out.

    Attributes:
        threads: For each update, whether the judge was asked on threads.
        seconds: Wall-clock time of each update.
        stages: The trainer's own account of it: seconds of each stage.
        weights: Digest of the weights at the end.
    """

    threads: list[bool]
    seconds: list[float]
    stages: list[dict[str, float]]
    weights: str


def serve(latency: float, ready: Any) -> None:
    """Answer A or B to each request after a wait."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"]
            time.sleep(latency)
            verdict = "AB"[hashlib.blake2b(json.dumps(question).encode()).digest()[0] % 2]
            message = {"role": "assistant", "content": verdict}
            reply = {
                **{"id": "1", "object": "chat.completion", "created": 0, "model": "delayed"},
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
            body = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    ready.put(server.server_address[1])
    server.serve_forever()


@contextmanager
def delayed_endpoint(latency: float) -> Iterator[str]:
    """The URL of a server that waits, for the length of the block."""
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    process = context.Process(target=serve, args=(latency, ready), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ready.get(timeout=120)}/v1"
    finally:
        process.terminate()
        process.join()


class Clock(TrainerCallback):
    """When each step began and ended; switches the threads on and off from one to the next."""

    def __init__(self, first: bool) -> None:
        self.trainer: Any = None
        self.threads: list[bool] = []
        self.next = first
        self.begun: list[float] = []
        self.ended: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Choose, and note the time."""
        self.trainer.args.judge_in_background = self.next
        self.trainer._judging = judging_for(self.trainer.judge, self.trainer.args, self.trainer.accelerator.device)
        self.threads.append(self.next)
        self.next = not self.next
        self.begun.append(time.perf_counter())

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ended.append(time.perf_counter())


def policy(name: str) -> tuple[Any, Any]:
    """Model and tokenizer; "small" is a random Llama with the embedded model's tokenizer, for a busy machine."""
    if name != "small":
        return name, None
    tokenizer = load_tokenizer("demo")
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes)), tokenizer


def train(judge: Judge, first: bool, options: argparse.Namespace, folder: Path) -> Run:
    """One run, whose first update has threads or not."""
    clock = Clock(first)
    args = NashConfig(
        output_dir=str(folder),
        method="mpo",
        max_steps=options.updates + 1,
        magnet_every=1,
        per_device_train_batch_size=options.prompts,
        gradient_accumulation_steps=options.micro_batches,
        num_generations=options.responses,
        max_completion_length=options.tokens,
        learning_rate=1e-4,
        save_strategy="no",
        sample_steps=0,
        disable_tqdm=True,
        report_to="none",
    )
    model, tokenizer = policy(options.model)
    trainer = NashTrainer(
        model=model,
        processing_class=tokenizer,
        judge=judge,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": demo_prompts("train")["prompt"]}),
        peft_config=LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
        callbacks=[clock],
    )
    clock.trainer = trainer
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row][1:]
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in sorted(trainer.roles.current.named_parameters()):
        if parameter.requires_grad:
            digest.update(name.encode() + parameter.detach().float().cpu().numpy().tobytes())
    return Run(
        clock.threads[1:],
        [end - begin for begin, end in zip(clock.begun, clock.ended, strict=True)][1:],
        [{stage: row[f"seconds_{stage}"] for stage in STAGES} for row in rows],
        digest.hexdigest(),
    )


def make_judge(name: str, url: str | None, options: argparse.Namespace) -> Judge:
    """The panel, or a language model behind an endpoint."""
    if name == "panel":
        return build_judge("panel")
    return build_judge(
        {
            **{"kind": "llm", "model": options.served, "backend": "endpoint", "base_url": url},
            **{"concurrency": options.concurrency, "logprobs": "never"},
        }
    )


def measure(name: str, options: argparse.Namespace) -> list[Run]:
    """An even number of runs, the other way round each time."""
    runs = []
    own = name == "endpoint" and options.base_url is None
    with delayed_endpoint(options.latency) if own else nullcontext(options.base_url) as url:
        judge = make_judge(name, url, options)
        for number in range(2 * options.rounds):
            with tempfile.TemporaryDirectory() as folder:
                run = train(judge, number % 2 == 0, options, Path(folder))
            runs.append(run)
            pairs = zip(run.threads, run.seconds, strict=True)
            print(f"{name}:", ", ".join(f"{'threads' if on else 'at once'} {s:.1f} s" for on, s in pairs), flush=True)
    if len({run.weights for run in runs}) != 1:
        raise SystemExit(f"{name}: the runs ended in different weights: {[run.weights for run in runs]}")
    return runs


def table(name: str, runs: list[Run]) -> str:
    """Means over updates, and the ratio of each update without threads and the same with them in the other run."""
    lines = ["| judge asked | update | rollout | judge busy | waiting | log-probabilities | gradient |"]
    lines.append("|---|---|---|---|---|---|---|")
    updates = [update for run in runs for update in zip(run.threads, run.seconds, run.stages, strict=True)]
    for on, words in ((False, "at once"), (True, "on threads")):
        these = [(seconds, stages) for threads, seconds, stages in updates if threads == on]
        means = [statistics.mean(seconds for seconds, _ in these)]
        means += [statistics.mean(stages[stage] for _, stages in these) for stage in STAGES]
        lines.append(f"| {words} | {' | '.join(f'{mean:.2f} s' for mean in means)} |")
    ratios = []
    for one, other in zip(runs[::2], runs[1::2], strict=True):
        for on, a, b in zip(one.threads, one.seconds, other.seconds, strict=True):
            ratios.append(b / a if on else a / b)
    low, high = min(ratios), max(ratios)
    lines.append(f"\n{name}: {statistics.median(ratios):.2f} times as fast on threads [{low:.2f}, {high:.2f}], median")
    lines[-1] += f" and range of {len(ratios)} updates done both ways; the same weights, bit for bit."
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write if told to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judges", nargs="+", choices=("endpoint", "panel"), default=["endpoint", "panel"])
    parser.add_argument("--latency", type=float, default=0.5, help="seconds that the endpoint takes for a request")
    parser.add_argument("--concurrency", type=int, default=8, help="requests open at the same time")
    parser.add_argument("--base_url", help="a real endpoint in place of the one that waits")
    parser.add_argument("--served", default="delayed", help="the model's name at the endpoint")
    parser.add_argument("--model", default="demo", help="the policy; small: a random model of few parameters")
    parser.add_argument("--rounds", type=int, default=2, help="of two runs each")
    parser.add_argument("--updates", type=int, default=4, help="of each run, after a first that is not counted")
    parser.add_argument("--prompts", type=int, default=1, help="of a micro-batch")
    parser.add_argument("--micro_batches", type=int, default=4)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    machine = {
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(json.dumps(machine))
    for name in options.judges:
        runs = measure(name, options)
        print(f"\n{table(name, runs)}\n")
        if options.write:
            RESULTS.mkdir(parents=True, exist_ok=True)
            record = {"machine": machine, "options": vars(options), "runs": [asdict(run) for run in runs]}
            (RESULTS / f"{name}_{Path(options.model).name}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
