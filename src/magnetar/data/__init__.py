"""Prompts, preference pairs and demonstrations in the usual formats: from a file, a folder, the Hub, or embedded."""

from magnetar.data.demo import demo_prompts
from magnetar.data.demonstrations import load_demonstrations
from magnetar.data.preferences import load_preferences, read_preferences
from magnetar.data.prompts import limit_prompt_length, load_prompts, prompt_text, render_prompts, split_rounds
from magnetar.data.splits import refuse_trained_prompts, split_preferences

__all__ = [
    "demo_prompts",
    "limit_prompt_length",
    "load_demonstrations",
    "load_preferences",
    "load_prompts",
    "prompt_text",
    "read_preferences",
    "refuse_trained_prompts",
    "render_prompts",
    "split_preferences",
    "split_rounds",
]
