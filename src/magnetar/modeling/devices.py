"""Which devices are which."""

import torch

__all__ = ["are_apart"]


def are_apart(first: torch.device | str, second: torch.device | str) -> bool:
    """Whether two devices are surely not the same; one without a number may be any of its kind."""
    a, b = torch.device(first), torch.device(second)
    if a.type != b.type:
        return True
    return a.index is not None and b.index is not None and a.index != b.index
