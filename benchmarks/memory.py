"""Peak memory of a forward and backward pass against vocabulary and length, one process for each cell.

    python benchmarks/memory.py                     # two tables, about ten minutes on a CPU
    python benchmarks/memory.py --write             # also rewrites the section of benchmarks/README.md
    python benchmarks/memory.py --vocabularies 151936 --layers 28 --width 3584 --dtype bfloat16

A random Llama model with LoRA (r = 16, all linear layers of the body), so that the output layer is frozen; with
`--train_all` every weight learns. What is measured is the most memory that the pass needs beside the model: on CUDA by
the allocator's own record, on a CPU by the peak of the process's resident memory, which Linux lets a process reset.
Seconds are of the clock on CUDA and of the processor on a CPU, where other programs may run.

Ways: `padded, all logits` is what a plain `model(input_ids)` and `log_softmax` cost, one row for each response;
`padded` and `packed` compute logits where response tokens are predicted; `chunked` never holds them together;
`checkpointed` computes the activations of each layer again in the backward pass.
"""

import argparse
import gc
import json
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from magnetar.modeling.logprobs import exact_kl, response_logprobs
from magnetar.modeling.output_layers import frozen_output_layer
from magnetar.modeling.vocabulary import FrozenStates

README = Path(__file__).resolve().parent / "README.md"
VOCABULARY_WAYS = ("padded, all logits", "packed", "packed, chunked", "packed, exact KL", "packed, chunked, exact KL")
LENGTH_WAYS = (
    "padded, all logits",
    "padded",
    "packed",
    "packed, chunked",
    "packed, checkpointed",
    "packed, chunked, checkpointed",
)
Batch = tuple[list[list[int]], list[list[list[int]]]]


class PeakMemory:
    """The most memory in use between `start` and `stop`, beyond what was in use at the start, in MiB."""

    def __init__(self, device: str) -> None:
        self._device = device

    def start(self) -> None:
        """Remember what is in use."""
        gc.collect()
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is resident now
            self._before = self._resident("VmRSS")

    def stop(self) -> float:
        """The most since the start, in MiB."""
        peak = torch.cuda.max_memory_allocated() if self._device == "cuda" else self._resident("VmHWM")
        return (peak - self._before) / 2**20

    def _resident(self, name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found is None:
            raise SystemExit("resident memory is measured on Linux only; use --device cuda")
        return int(found[1]) * 1024


def build(args: argparse.Namespace) -> torch.nn.Module:
    """The model of a cell, in training mode."""
    config = LlamaConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.width,
        intermediate_size=8 * args.width // 3,
        num_hidden_layers=args.layers,
        num_attention_heads=args.width // 64,
        num_key_value_heads=args.width // 64,
        max_position_embeddings=2**15,
        attn_implementation="sdpa",
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(args.device):
        model = LlamaForCausalLM(config).to(getattr(torch, args.dtype))
    if not args.train_all:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model = get_peft_model(model, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    if "checkpointed" in args.way:
        model.activation_checkpointing_enable()
    return model.train()


def draw(args: argparse.Namespace) -> Batch:
    """Prompts and responses of random tokens, each response of another length, half of the longest or more."""
    generator = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(3, args.vocabulary, (count,), generator=generator).tolist()

    prompts = [tokens(args.prompt_tokens) for _ in range(args.prompts)]
    steps = max(1, args.group_size - 1)
    lengths = [args.response_tokens - args.response_tokens * g // (2 * steps) for g in range(args.group_size)]
    return prompts, [[tokens(length) for length in lengths] for _ in prompts]


def run_pass(model: torch.nn.Module, batch: Batch, args: argparse.Namespace) -> None:
    """Forward and backward in one of the ways."""
    way = args.way
    if way == "padded, all logits":
        rows = [[*prompt, *response] for prompt, group in zip(*batch, strict=True) for response in group]
        width = max(len(row) for row in rows)
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=args.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=args.device)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).sum().backward()
        return
    options = {
        "temperature": 1.0,
        "layout": "packed" if "packed" in way else "padded",
        "pad_token_id": 0,
        "chunked": "chunked" in way,
    }
    if "exact KL" not in way:
        response_logprobs(model, *batch, **options).logp_BGT.sum().backward()
        return
    # The frozen role is the policy itself: what it costs does not depend on its weights.
    if options["chunked"]:
        with torch.no_grad():
            hidden = response_logprobs(model, *batch, states=True, entropy=False, **options).hidden_NH
        states = FrozenStates(hidden, frozen_output_layer(model))
        response_logprobs(model, *batch, against={"magnet": states}, **options).kl_BGT["magnet"].sum().backward()
        return
    out = response_logprobs(model, *batch, full=True, **options)
    with torch.no_grad():
        other = response_logprobs(model, *batch, full=True, entropy=False, **options).full_NV
    exact_kl(out.full_NV, other, out.mask_BGT).sum().backward()


def measure(args: argparse.Namespace) -> dict[str, float]:
    """One cell: MiB beside the model and seconds of a pass, after a small one that loads what is loaded once."""
    model = build(args)
    few = argparse.Namespace(**{**vars(args), "prompts": 1, "response_tokens": 4, "prompt_tokens": 4})
    run_pass(model, draw(few), few)
    model.zero_grad()
    batch = draw(args)
    memory = PeakMemory(args.device)
    memory.start()
    clock = time.perf_counter if args.device == "cuda" else time.process_time
    started = clock()
    run_pass(model, batch, args)
    if args.device == "cuda":
        torch.cuda.synchronize()
    seconds = clock() - started
    return {"mib": memory.stop(), "seconds": seconds}


def cell(args: argparse.Namespace, **changes: object) -> dict[str, float]:
    """Measure in a process of its own."""
    settings = {**vars(args), **changes}
    done = subprocess.run(
        [sys.executable, __file__, "--cell", json.dumps(settings)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def table(
    args: argparse.Namespace, name: str, heading: str, values: Sequence[int], ways: Sequence[str], **fixed: object
) -> str:
    """A markdown table: a row for each way, a column for each value."""
    lines = [f"| {heading} | {' | '.join(f'{value:,}' for value in values)} |", "| --- |" + " --- |" * len(values)]
    for way in ways:
        cells = [cell(args, **fixed, **{name: value, "way": way}) for value in values]
        shown = [f"{found['mib']:,.0f} MiB, {found['seconds']:.1f} s" for found in cells]
        lines.append(f"| {way} | {' | '.join(shown)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def report(args: argparse.Namespace) -> str:
    """Both tables with what they are of."""
    learns = "every weight learns" if args.train_all else "LoRA"
    what = f"{args.layers} layers of width {args.width}, {args.dtype}, {learns}, {args.device}"
    groups = f"{args.prompts} prompts of {args.prompt_tokens} tokens with {args.group_size} responses each"
    by_vocabulary = table(args, "vocabulary", "vocabulary", args.vocabularies, VOCABULARY_WAYS)
    by_length = table(args, "response_tokens", "longest response, tokens", args.lengths, LENGTH_WAYS)
    return (
        f"{what}; {groups}, of {args.response_tokens // 2} to {args.response_tokens} tokens:\n\n{by_vocabulary}\n\n"
        f"The same with a vocabulary of {args.vocabulary:,}, against the length of the responses:\n\n{by_length}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[8192, 32768, 131072])
    parser.add_argument("--lengths", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--vocabulary", type=int, default=49152, help="where the length varies")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--prompt_tokens", type=int, default=100)
    parser.add_argument("--group_size", type=int, default=4)
    parser.add_argument("--response_tokens", type=int, default=64, help="where the vocabulary varies")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--train_all", action="store_true", help="no adapter: every weight learns")
    parser.add_argument("--write", action="store_true", help="rewrite the section of benchmarks/README.md")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell is not None:
        print(json.dumps(measure(argparse.Namespace(**json.loads(args.cell)))))
        return
    section = report(args)
    print(section)
    if args.write:
        marked = re.compile(r"(<!-- memory:begin -->\n).*?(<!-- memory:end -->)", re.DOTALL)
        text, found = marked.subn(lambda match: match[1] + section + match[2], README.read_text())
        if not found:
            raise SystemExit(f"{README} has no lines <!-- memory:begin --> and <!-- memory:end -->")
        README.write_text(text)


if __name__ == "__main__":
    main()
