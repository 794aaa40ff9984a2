"""What decides vLLM's speed on the CPU: engines with different settings in one process, in turn.

    make test-vllm   # once: makes the environment .venv-vllm
    OMP_NUM_THREADS=1 .venv-vllm/bin/python benchmarks/vllm_speed.py --ways plain,rollouts,blocks,engine
    OMP_NUM_THREADS=1 .venv-vllm/bin/python benchmarks/vllm_speed.py --ways plain,compiled

Tokens are counted for each second of processor time, which other work on the machine changes less than wall time; with
one thread, on a machine at rest, the two are equal. The first batch warms up and is not counted.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

ROLLOUTS = {"logprobs_mode": "processed_logprobs"}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "rollouts": (ROLLOUTS, {"logprobs": 0, "seed": 3}),
    "blocks": ({"block_size": 32}, {}),
    "rollouts+blocks": (ROLLOUTS | {"block_size": 32}, {"logprobs": 0, "seed": 3}),
    "compiled": ({"enforce_eager": False}, {}),
}
"""Arguments of `vllm.LLM` and of its sampling; "engine" is the library's."""
TEXT = "Tell me of the long way home that the old fisherman took in the winter. " * 100


def main() -> None:
    """Run the ways in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default="plain,rollouts,blocks,engine", help=f"of {', '.join(WAYS)}, engine")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=50)
    parser.add_argument("--group", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    os.environ |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1"}

    from magnetar.modeling.loading import load_policy

    model, tokenizer = load_policy("demo", dtype="bfloat16")
    text = tokenizer(TEXT)["input_ids"]
    prompts = [text[i : i + args.prompt_tokens] for i in range(args.prompts)]
    draws: dict[str, Callable[[int], int]] = {
        way: own(model, tokenizer, prompts, args) if way == "engine" else bare(*WAYS[way], prompts, args)
        for way in args.ways.split(",")
    }
    speeds: dict[str, list[float]] = {way: [] for way in draws}
    for batch in range(args.batches + 1):
        for way, draw in draws.items():
            started = time.process_time()
            tokens = draw(batch)
            if batch:
                speeds[way].append(tokens / (time.process_time() - started))
    print(f"{'way':18}{'tokens/s of processor time':>28}{'range':>16}")
    for way, values in speeds.items():
        print(f"{way:18}{statistics.median(values):28.0f}{f'{min(values):.0f} to {max(values):.0f}':>16}", flush=True)
    os._exit(0)


def bare(
    options: dict[str, Any], sampling: dict[str, Any], prompts: list[list[int]], args: argparse.Namespace
) -> Callable[[int], int]:
    """A `vllm.LLM` that reads the checkpoint."""
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    from magnetar.modeling.loading import demo_model_folder

    fixed = {"dtype": "bfloat16", "max_model_len": args.prompt_tokens + args.tokens, "gpu_memory_utilization": 0.1}
    llm = LLM(model=str(demo_model_folder()), **(fixed | {"enforce_eager": True} | options))

    def draw(batch: int) -> int:
        llm.reset_prefix_cache()
        params = []
        for number in range(len(prompts)):
            seed = {"seed": sampling["seed"] + 1000 * number + batch} if "seed" in sampling else {}
            common = {"n": args.group, "max_tokens": args.tokens, "ignore_eos": True, "detokenize": False}
            params.append(SamplingParams(**(common | sampling | seed)))
        outputs = llm.generate([{"prompt_token_ids": p} for p in prompts], params, use_tqdm=False)
        return sum(len(completion.token_ids) for output in outputs for completion in output.outputs)

    return draw


def own(model: Any, tokenizer: Any, prompts: list[list[int]], args: argparse.Namespace) -> Callable[[int], int]:
    """The library's colocated engine; every weight moves before each batch, and the sync is counted."""
    import torch

    from magnetar.rollout import SamplingParams
    from magnetar.rollout.vllm import ColocatedSettings, VllmEngine
    from magnetar.rollout.vllm.start import StartVllm

    settings = ColocatedSettings(args.prompt_tokens + args.tokens, "bfloat16", enforce_eager=True)
    starter = StartVllm(settings, tokenizer, "processed_logprobs")
    engine = VllmEngine(tokenizer, SamplingParams(args.tokens), starter, eos_token_ids=[])

    def draw(batch: int) -> int:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01 if batch % 2 else 0.99)
        drawn = engine.generate(model, prompts, args.group, [1000 * number + batch for number in range(len(prompts))])
        return sum(len(tokens) for group in drawn.response_ids for tokens in group)

    return draw


if __name__ == "__main__":
    main()
