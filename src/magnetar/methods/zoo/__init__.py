"""Every method as one preset: the settings of its source, each open to change by name."""

import inspect
from collections.abc import Callable
from typing import Any

from magnetar.errors import ConfigError, unknown_name
from magnetar.methods.method import Method
from magnetar.methods.zoo.adaptive import mpo_adaptive, mpo_optimistic, mpo_recall
from magnetar.methods.zoo.magnetic import mmd, mpo, mpo_rt
from magnetar.methods.zoo.original import adagrad_norm, extragradient, hamiltonian, mirror_descent, ogda, omwu, sppo
from magnetar.methods.zoo.regularized import egpo, inpo, nash_md, nash_md_pg, omd, online_ipo
from magnetar.methods.zoo.scores import bt_rlhf, grpo, iterative_dpo, online_dpo, ppo, rloo

__all__ = [
    "METHODS",
    "PUBLISHED_NAMES",
    "adagrad_norm",
    "bt_rlhf",
    "build_method",
    "egpo",
    "extragradient",
    "grpo",
    "hamiltonian",
    "inpo",
    "iterative_dpo",
    "mirror_descent",
    "mmd",
    "mpo",
    "mpo_adaptive",
    "mpo_optimistic",
    "mpo_recall",
    "mpo_rt",
    "nash_md",
    "nash_md_pg",
    "ogda",
    "omd",
    "omwu",
    "online_dpo",
    "online_ipo",
    "ppo",
    "rloo",
    "sppo",
]

METHODS: dict[str, Callable[..., Method]] = {
    make.__name__: make
    for make in (
        mpo,
        mpo_rt,
        mpo_optimistic,
        mpo_adaptive,
        mpo_recall,
        mmd,
        mirror_descent,
        sppo,
        omd,
        inpo,
        online_ipo,
        nash_md,
        nash_md_pg,
        egpo,
        omwu,
        extragradient,
        ogda,
        hamiltonian,
        adagrad_norm,
        bt_rlhf,
        ppo,
        rloo,
        grpo,
        iterative_dpo,
        online_dpo,
    )
}
"""Every method by its name."""

PUBLISHED_NAMES: dict[str, str] = {
    "spo": "mirror_descent",
    "onpo": "omwu",
    "online_ipo_1": "omd",
    "online_ipo_2": "online_ipo",
}
"""Names that methods have in papers, where they are known here by the name of the update."""


def build_method(name: str, **settings: Any) -> Method:
    """Make a method from its name; a setting of None keeps the preset.

    Args:
        name: A key of `METHODS`, or of `PUBLISHED_NAMES`.
        **settings: Arguments of that method's function.

    Returns:
        The method.

    Raises:
        ConfigError: Unknown method, or a setting that this method does not have.
    """
    name = PUBLISHED_NAMES.get(name, name)
    if name not in METHODS:
        raise ConfigError(unknown_name("method", name, (*METHODS, *PUBLISHED_NAMES)))
    given = {key: value for key, value in settings.items() if value is not None}
    accepted = inspect.signature(METHODS[name]).parameters
    for key in given:
        if key not in accepted:
            owners = [other for other, make in METHODS.items() if key in inspect.signature(make).parameters]
            known = f"it belongs to {', '.join(owners)}" if owners else f"known: {', '.join(accepted)}"
            raise ConfigError(f"method {name!r} has no setting {key!r}; {known}. Remove it or choose another method")
    return METHODS[name](**given)
