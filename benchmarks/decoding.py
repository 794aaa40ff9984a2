"""Time ways to draw groups of responses with transformers, side by side in one process, and what each change brings.

    python benchmarks/decoding.py                                  # 4 prompts of 50 tokens, 4 responses of 64 tokens
    python benchmarks/decoding.py --prompt_tokens 400
    python benchmarks/decoding.py --ways plain,both,generate,continuous,static,compiled

The model is the embedded SmolLM2-135M-Instruct with a LoRA adapter (r = 16, all linear layers) whose weights are not
zero; no response ends early, so that all ways do the same work. Ways take turns; ratios are to the first, turn by turn.

plain: adapters apart, each response with a copy of its prompt's cache. merged: adapters merged into copies of the
weights, which on the CPU are laid out for few rows. shared: one cache of the prompt for a group. both: what the engine
does by default. generate: transformers' `generate`. continuous: its `generate_batch`. static, compiled: its `generate`
with a static cache, without and with `torch.compile`.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig

from magnetar.modeling.loading import load_policy
from magnetar.rollout import SamplingParams, TransformersEngine

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OURS: dict[str, dict[str, Any]] = {
    "plain": {"merge": "off", "share_prompts": False},
    "merged": {"merge": "on", "share_prompts": False},
    "shared": {"merge": "off", "share_prompts": True},
    "both": {"merge": "on", "share_prompts": True},
}


def theirs(model: Any, prompts: list[list[int]], args: argparse.Namespace, way: str) -> None:
    """One of transformers' own ways."""
    settings: dict[str, Any] = {
        "max_new_tokens": args.response_tokens,
        "min_new_tokens": args.response_tokens,
        "do_sample": True,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    repeated = [prompt for prompt in prompts for _ in range(args.responses)]
    if way == "continuous":
        model.get_base_model().generate_batch(
            repeated, generation_config=GenerationConfig(**settings), progress_bar=False
        )
        return
    if way in ("static", "compiled"):
        settings |= {"cache_implementation": "static", "disable_compile": way == "static"}
    model.generate(input_ids=torch.tensor(repeated), generation_config=GenerationConfig(**settings))


def ways(
    model: Any, tokenizer: Any, prompts: list[list[int]], args: argparse.Namespace
) -> dict[str, Callable[[], Any]]:
    """The ways that were asked for, each a call."""
    sampling = SamplingParams(max_new_tokens=args.response_tokens)
    seeds = list(range(len(prompts)))
    found: dict[str, Callable[[], Any]] = {}
    for name in args.ways.split(","):
        if name in OURS:
            engine = TransformersEngine(tokenizer, sampling, eos_token_ids=(), **OURS[name])
            found[name] = lambda engine=engine: engine.generate(model, prompts, args.responses, seeds)
        else:
            found[name] = lambda name=name: theirs(model, prompts, args, name)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default="plain,merged,shared,both,generate")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--responses", type=int, default=4)
    parser.add_argument("--prompt_tokens", type=int, default=50)
    parser.add_argument("--response_tokens", type=int, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    model, tokenizer = load_policy("demo", dtype=args.dtype)
    torch.manual_seed(0)
    config = LoraConfig(r=16, target_modules=LINEAR, init_lora_weights=False, task_type="CAUSAL_LM")
    policy = get_peft_model(model, config).eval()
    prompts = torch.randint(10, 40_000, (args.prompts, args.prompt_tokens)).tolist()
    calls = ways(policy, tokenizer, prompts, args)
    tokens = args.prompts * args.responses * args.response_tokens
    speeds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.no_grad():
        for turn in range(args.rounds + 1):
            for name, call in calls.items():
                started = time.perf_counter()
                call()
                speed = tokens / (time.perf_counter() - started)
                print(f"round {turn} {name}: {speed:.1f} tokens/s", file=sys.stderr)
                if turn:  # the first is not counted
                    speeds[name].append(speed)
    first = next(iter(speeds.values()))
    print(f"| way | tokens/s | ratio to {next(iter(speeds))} |\n|---|---|---|")
    for name, values in speeds.items():
        ratios = [a / b for a, b in zip(values, first, strict=True)]
        cells = (f"{statistics.median(row):.3g} ({min(row):.3g} to {max(row):.3g})" for row in (values, ratios))
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
