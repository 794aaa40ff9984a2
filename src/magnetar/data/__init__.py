"""Prompts in TRL's column formats, from a file, a folder, the Hub or the set embedded for demonstrations."""

from magnetar.data.demo import demo_prompts
from magnetar.data.prompts import limit_prompt_length, load_prompts, prompt_text, render_prompts, split_rounds

__all__ = [
    "demo_prompts",
    "limit_prompt_length",
    "load_prompts",
    "prompt_text",
    "render_prompts",
    "split_rounds",
]
