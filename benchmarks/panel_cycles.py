"""How often the embedded panel's majority runs in circles, on responses of the embedded model.

    python benchmarks/panel_cycles.py                  # 25 held-out prompts, 16 responses each: some minutes
    python benchmarks/panel_cycles.py --prompts 4      # a quick look

Prints one line and one JSON object.
"""

import argparse
import json
import time
from typing import Any

import numpy as np
import torch

from magnetar.data.demo import demo_prompts
from magnetar.judges import build_judge, cyclic_triple_share
from magnetar.modeling.loading import load_policy
from magnetar.types import Prompt


def sample_groups(prompts: list[Prompt], options: argparse.Namespace) -> list[list[str]]:
    """Responses of the model to each prompt, at temperature 1 and without filters, as in training."""
    loaded: tuple[Any, Any] = load_policy(options.model)
    model, tokenizer = loaded
    torch.manual_seed(options.seed)
    groups = []
    for prompt in prompts:
        inputs = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            tokens = model.generate(
                **inputs,
                do_sample=True,
                temperature=options.temperature,
                top_p=1.0,
                top_k=0,
                max_new_tokens=options.max_new_tokens,
                num_return_sequences=options.responses,
            )
        new_tokens = tokens[:, inputs["input_ids"].shape[1] :]
        groups.append(tokenizer.batch_decode(new_tokens, skip_special_tokens=True))
    return groups


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo", help="model that responds")
    parser.add_argument("--judge", default="panel", help="judge spec")
    parser.add_argument("--prompts", type=int, default=25, help="number of held-out prompts, evenly spread")
    parser.add_argument("--responses", type=int, default=16, help="responses to each prompt")
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    judge = build_judge(options.judge)
    held_out = demo_prompts("test")["prompt"]
    chosen = np.linspace(0, len(held_out) - 1, min(options.prompts, len(held_out))).astype(int)
    prompts = [held_out[int(at)] for at in chosen]
    groups = sample_groups(prompts, options)
    started = time.perf_counter()
    win_prob = judge.group_win_prob(prompts, groups)
    seconds = time.perf_counter() - started

    size = options.responses
    triples = len(prompts) * (size * (size - 1) * (size - 2) // 6)
    share = cyclic_triple_share(win_prob)
    with_cycle = float(np.mean([cyclic_triple_share(matrix) > 0 for matrix in win_prob]))
    print(
        f"{judge.name}: {share:.1%} of {triples} response triples are cyclic; "
        f"{with_cycle:.0%} of {len(prompts)} prompts have at least one cycle"
    )
    figures = {
        "judge": judge.name,
        "model": options.model,
        "prompts": len(prompts),
        "responses": size,
        "triples": triples,
        "cyclic_triple_share": share,
        "prompts_with_cycle": with_cycle,
        "judge_seconds_per_32_responses": seconds / (len(prompts) * size) * 32,
        "judge_stats": judge.stats(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
