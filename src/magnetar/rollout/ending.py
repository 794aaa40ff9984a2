"""Which tokens end a response."""

from typing import Any

__all__ = ["end_token_ids"]


def end_token_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a response: those of the model's generation config, else the tokenizer's.

    Args:
        model: Unwrapped; its generation config may be absent.
        tokenizer: With an `eos_token_id`, which may be None.

    Returns:
        Token ids; none when neither names one.
    """
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    if ids is None:
        ids = tokenizer.eos_token_id
    if ids is None:
        return frozenset()
    return frozenset([ids] if isinstance(ids, int) else ids)
