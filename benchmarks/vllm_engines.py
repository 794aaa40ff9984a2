"""Ways to let vLLM draw from the policy in training: speed of generation, seconds of a sync, and whether it is right.

    make test-vllm   # once: makes the environment .venv-vllm
    OMP_NUM_THREADS=1 .venv-vllm/bin/python benchmarks/vllm_engines.py --rounds 2

Each way runs in a process of its own, in turn, several times: an update of a LoRA adapter, a sync, a batch of groups,
and the trainer's own log-probabilities of the responses. The first batch warms up and is not counted.

- transformers: the library's engine on the training model itself.
- merged: the library's vLLM engine, merged weights replaced in place.
- adapter: `vllm.LLM` with the adapter loaded beside the base model, as vLLM's users serve one.
- trl: `trl.generation.vllm_generation.VLLMGeneration`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

WAYS = ("transformers", "merged", "adapter", "trl")
Draw = Callable[[], tuple[float, list[list[list[int]]], list[list[list[float]]]]]
"""Syncs and draws; seconds of the sync, tokens and log-probabilities of the responses."""


def main() -> None:
    """Run every way in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="bfloat16", help="precision of vLLM; the trainer's is float32")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=50)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--compile", action="store_true", help="let vLLM compile the model")
    parser.add_argument("--block-size", type=int, default=None, help="tokens of a block of vLLM's cache")
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run(args.child, args)
        return
    rows: dict[str, list[dict[str, Any]]] = {way: [] for way in args.ways.split(",")}
    for _ in range(args.rounds):
        for way in rows:
            done = subprocess.run([sys.executable, *sys.argv, "--child", way], capture_output=True, text=True)
            lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
            if not lines:
                print(f"{way}: failed: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else '?'}")
                continue
            rows[way] += json.loads(lines[-1].removeprefix("RESULT "))
    print(f"{'way':14}{'tokens/s':>10}{'range':>16}{'sync s':>8}{'mean |Δ logp|':>15}{'largest':>9}")
    for way, results in rows.items():
        if results:
            print(line_of(way, results))


def line_of(way: str, results: list[dict[str, Any]]) -> str:
    """One line of the table."""
    speeds = [r["speed"] for r in results]
    spread = f"{min(speeds):.0f} to {max(speeds):.0f}"
    sync = statistics.median(r["sync"] for r in results)
    mean, largest = statistics.mean(r["mean"] for r in results), max(r["largest"] for r in results)
    return f"{way:14}{statistics.median(speeds):10.0f}{spread:>16}{sync:8.2f}{mean:15.4f}{largest:9.3f}"


def run(way: str, args: argparse.Namespace) -> None:
    """Measure one way in this process."""
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}
    import torch
    from peft import LoraConfig, get_peft_model

    from magnetar.modeling.loading import load_policy
    from magnetar.modeling.logprobs import response_logprobs

    model, tokenizer = load_policy(args.model, dtype="float32")
    targets = ["q_proj", "v_proj"]
    policy = get_peft_model(model, LoraConfig(r=8, lora_alpha=32, target_modules=targets)).eval()
    text = tokenizer("Tell me of the long way home that the old fisherman took in the winter. " * 100)["input_ids"]
    prompts = [text[i : i + args.prompt_tokens] for i in range(args.prompts)]
    draw = {"transformers": own, "merged": merged, "adapter": adapter, "trl": trl}[way](
        policy, tokenizer, prompts, args
    )
    results = []
    for batch in range(args.batches + 1):
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if "lora_B" in name:
                    noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(batch))
                    parameter.copy_(noise * 0.02)
        started = time.perf_counter()
        sync, responses, logp = draw()
        seconds = time.perf_counter() - started - sync
        with torch.no_grad():
            out = response_logprobs(
                policy, prompts, responses, temperature=1.0, layout="packed", pad_token_id=tokenizer.pad_token_id
            )
        gaps = [
            abs(float(out.logp_BGT[b, g, t]) - value)
            for b, group in enumerate(logp)
            for g, values in enumerate(group)
            for t, value in enumerate(values)
        ]
        speed = sum(len(r) for group in responses for r in group) / seconds
        result = {"speed": speed, "sync": sync, "mean": statistics.mean(gaps), "largest": max(gaps)}
        results += [result] if batch else []
    print("RESULT " + json.dumps(results), flush=True)
    os._exit(0)


def own(policy: Any, tokenizer: Any, prompts: list[list[int]], args: argparse.Namespace) -> Draw:
    """The training model itself."""
    from magnetar.rollout import SamplingParams, TransformersEngine

    engine = TransformersEngine(tokenizer, SamplingParams(args.tokens), eos_token_ids=[])

    def draw() -> Any:
        drawn = engine.generate(policy, prompts, args.group, range(len(prompts)))
        return 0.0, drawn.response_ids, drawn.sampling_logp

    return draw


def merged(policy: Any, tokenizer: Any, prompts: list[list[int]], args: argparse.Namespace) -> Draw:
    """The library's engine."""
    from magnetar.rollout import SamplingParams
    from magnetar.rollout.vllm import ColocatedSettings, VllmEngine
    from magnetar.rollout.vllm.start import StartVllm

    settings = ColocatedSettings(length(args), args.dtype, enforce_eager=not args.compile, block_size=args.block_size)
    starter = StartVllm(settings, tokenizer, "processed_logprobs")
    engine = VllmEngine(tokenizer, SamplingParams(args.tokens), starter, eos_token_ids=[])

    def draw() -> Any:
        started = time.perf_counter()
        engine.sync(policy)
        seconds = time.perf_counter() - started
        drawn = engine.generate(policy, prompts, args.group, range(len(prompts)))
        return seconds, drawn.response_ids, drawn.sampling_logp

    return draw


def adapter(policy: Any, tokenizer: Any, prompts: list[list[int]], args: argparse.Namespace) -> Draw:
    """LoRA as vLLM has it: the adapter is saved and loaded anew under a new number."""
    from vllm import LLM  # type: ignore[import-not-found]
    from vllm.lora.request import LoRARequest  # type: ignore[import-not-found]

    llm = LLM(enable_lora=True, max_lora_rank=8, **options(policy, args))
    folder, number = tempfile.mkdtemp(), 0

    def draw() -> Any:
        nonlocal number
        number += 1
        started = time.perf_counter()
        policy.save_pretrained(f"{folder}/{number}")
        request = LoRARequest(str(number), number, f"{folder}/{number}")
        llm.llm_engine.add_lora(request)
        seconds = time.perf_counter() - started
        return seconds, *of_vllm(llm, prompts, args, lora_request=request)

    return draw


def trl(policy: Any, tokenizer: Any, prompts: list[list[int]], args: argparse.Namespace) -> Draw:
    """TRL's wrapper, in this process."""
    import torch
    from accelerate import Accelerator
    from trl.generation.vllm_generation import VLLMGeneration

    generation = VLLMGeneration(
        policy,
        Accelerator(cpu=not torch.cuda.is_available()),
        tokenizer,
        gpu_memory_utilization=0.3,
        max_model_length=length(args),
        max_completion_length=args.tokens,
        generation_kwargs={"ignore_eos": True},
    )
    repeated = [prompt for prompt in prompts for _ in range(args.group)]

    def draw() -> Any:
        started = time.perf_counter()
        generation.sync_weights()
        seconds = time.perf_counter() - started
        _, tokens, logp, _ = generation.generate(repeated, None, args.group)
        rows = range(0, len(repeated), args.group)
        values = [[step[0] for step in row] for row in logp]
        return seconds, [tokens[r : r + args.group] for r in rows], [values[r : r + args.group] for r in rows]

    return draw


def length(args: argparse.Namespace) -> int:
    """Room for a prompt and its response."""
    return args.prompt_tokens + args.tokens


def options(policy: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Of an engine that is not the library's."""
    given = {"enforce_eager": not args.compile, "logprobs_mode": "processed_logprobs", "gpu_memory_utilization": 0.3}
    return given | {"model": policy.name_or_path, "dtype": args.dtype, "max_model_len": length(args)}


def of_vllm(llm: Any, prompts: list[list[int]], args: argparse.Namespace, **more: Any) -> Any:
    """Tokens and log-probabilities of groups."""
    from vllm import SamplingParams  # type: ignore[import-not-found]

    params = SamplingParams(n=args.group, max_tokens=args.tokens, ignore_eos=True, logprobs=0, detokenize=False)
    outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False, **more)
    tokens = [[list(c.token_ids) for c in output.outputs] for output in outputs]
    logp = [
        [[entry[t].logprob for entry, t in zip(c.logprobs, c.token_ids, strict=True)] for c in output.outputs]
        for output in outputs
    ]
    return tokens, logp


if __name__ == "__main__":
    main()
