"""What the commands keep off the console."""

import warnings

__all__ = ["quiet_libraries"]


def quiet_libraries() -> None:
    """Silence messages that a user of the commands can do nothing about; downloads still show their progress."""
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging

    # PEFT 0.21 reads a property that transformers 5.23 renamed, each time an adapter is attached.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
    # Bars for loading and writing weights, which flash by between our lines; the switch also turns off downloads' bars.
    downloads = not are_progress_bars_disabled()
    logging.disable_progress_bar()
    if downloads:
        enable_progress_bars()
