"""Ready-made games from three actions to as many as wanted: cycles, orders, noise and mixtures of them."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from magnetar.errors import GameError
from magnetar.games.checks import (
    check_between,
    check_choice,
    check_count,
    number_array,
    random_generator,
    sigmoid,
    titled,
)
from magnetar.games.game import PreferenceGame

__all__ = [
    "biased_rps",
    "bradley_terry",
    "cyclic_block_game",
    "cyclic_game",
    "disc_game",
    "egpo_game",
    "egpo_reference",
    "game_of_points",
    "noisy_bradley_terry",
    "random_game",
    "rps",
    "tournament",
]

FloatArray = NDArray[np.float64]

RPS_ACTIONS = ("rock", "paper", "scissors")
DISC_FORMS = ("logistic", "linear")
EGPO_KINDS = ("random", "tie", "lower_win")


def rps() -> PreferenceGame:
    """Rock–paper–scissors: paper beats rock, scissors beat paper, rock beats scissors, always.

    Returns:
        Three actions; the equilibrium is uniform.
    """
    return PreferenceGame(_circle(3, 1.0), actions=RPS_ACTIONS, name="rps")


def biased_rps(p01: float = 0.9, p12: float = 0.8, p20: float = 0.8) -> PreferenceGame:
    """Rock–paper–scissors with unequal odds, so that the equilibrium is not where most runs start.

    Where all three exceed 1/2 (or all are below), the equilibrium is ``(p12 − ½, p20 − ½, p01 − ½)`` divided by its
    sum: each action is played as often as the other two are far from a tie. Otherwise some action loses to none.

    Args:
        p01: P(rock beats scissors), actions 0 and 1, in [0, 1].
        p12: P(scissors beat paper), actions 1 and 2, in [0, 1].
        p20: P(paper beats rock), actions 2 and 0, in [0, 1].

    Returns:
        Three actions; by default ``P = [[.5, .9, .2], [.1, .5, .8], [.8, .2, .5]]`` with the equilibrium
        (0.3, 0.3, 0.4).

    Raises:
        GameError: A probability outside [0, 1].
    """
    given = {"p01": p01, "p12": p12, "p20": p20}
    for setting, value in given.items():
        check_between(setting, value, 0.0, 1.0)
    # Rounded, so that the complement of 0.8 is the decimal 0.2 and the matrix is the published one to the last bit.
    p10, p21, p02 = (round(1.0 - p, 15) for p in (p01, p12, p20))
    win_prob = [[0.5, p01, p02], [p10, 0.5, p12], [p20, p21, 0.5]]
    default = given == {"p01": 0.9, "p12": 0.8, "p20": 0.8}
    name = "biased_rps" if default else f"biased_rps({p01}, {p12}, {p20})"
    return PreferenceGame(win_prob, actions=("rock", "scissors", "paper"), name=name)


def cyclic_game(actions: int = 9, win: float = 1.0) -> PreferenceGame:
    """Rock–paper–scissors with any number of actions: on a circle, each beats the half behind it.

    Action i beats ``i − 1, …, i − ⌊(A−1)/2⌋`` (modulo A) with probability ``win`` and loses to the rest as often; with
    an even number the opposite action is a tie.

    Args:
        actions: A, at least 1.
        win: Win probability, in [1/2, 1].

    Returns:
        A game of A actions; the uniform policy is an equilibrium.

    Raises:
        GameError: Fewer than one action, or a win probability outside its range.
    """
    check_count("actions", actions)
    check_between("win", win, 0.5, 1.0)
    return PreferenceGame(_circle(actions, win), name=titled(cyclic_game, actions, win=win))


def random_game(actions: int = 10, seed: int = 0) -> PreferenceGame:
    """Game whose every pair has an independent win probability, uniform on [0, 1]: no order at all.

    Args:
        actions: A, at least 1.
        seed: Of NumPy's generator; the same seed gives the same game.

    Returns:
        A game of A actions.

    Raises:
        GameError: Fewer than one action, or a negative seed.
    """
    check_count("actions", actions)
    upper = np.triu(random_generator(seed).random((actions, actions)), 1)
    return PreferenceGame(_from_upper(upper), name=titled(random_game, actions, seed=seed))


def egpo_game(
    actions: int = 10, seed: int = 0, kind: Literal["random", "tie", "lower_win"] = "random"
) -> PreferenceGame:
    """Preference matrix as in the simulations of EGPO: the lower triangle is drawn, the upper one completes it.

    ``P_ij ~ U[0, 1]`` for i > j ("random": the paper's simulations, with 10 actions, and 100 for neural policies),
    ``P_ij = 1/2`` ("tie"), or ``P_ij = 1`` ("lower_win": a strict order, the last action best). The distribution of
    "random" is `random_game`'s; the numbers differ, and so do both from the paper's, which PyTorch drew.

    Args:
        actions: A, at least 1.
        seed: Of NumPy's generator; used by "random" only.
        kind: What the lower triangle holds.

    Returns:
        A game of A actions.

    Raises:
        GameError: Fewer than one action, a negative seed, or an unknown kind.

    Source:
        arXiv:2503.08942, numerical simulations; the simulations' code in github.com/zhourunlong/EGPO.
    """
    check_count("actions", actions)
    check_choice("kind", kind, EGPO_KINDS)
    generator = random_generator(seed)
    shape = (actions, actions)
    lower = generator.random(shape) if kind == "random" else np.full(shape, 0.5 if kind == "tie" else 1.0)
    title = titled(egpo_game, actions, seed=seed, kind=kind)
    return PreferenceGame(_from_upper(1.0 - np.tril(lower, -1).T), name=title)


def egpo_reference(actions: int = 10, seed: int = 0) -> FloatArray:
    """Starting and reference policy of EGPO's simulations: a softmax of independent standard normal logits.

    Args:
        actions: A, at least 1.
        seed: Of NumPy's generator.

    Returns:
        Shape (A,), positive, sums to one.

    Raises:
        GameError: Fewer than one action, or a negative seed.

    Source:
        arXiv:2503.08942, numerical simulations.
    """
    check_count("actions", actions)
    weight = np.exp(random_generator(seed).standard_normal(actions))
    return weight / weight.sum()


def bradley_terry(actions: int = 10, seed: int = 0, spread: float = 1.0) -> PreferenceGame:
    """Scored actions and nothing else: the order that a reward model assumes.

    ``P_ij = σ(s_i − s_j)`` with ``s_i ~ N(0, spread²)``. The action of the highest score beats every other more often
    than not (a Condorcet winner), so always playing it is the equilibrium, the only one where spread > 0.

    Args:
        actions: A, at least 1.
        seed: Of NumPy's generator; the same seed gives the same game.
        spread: Standard deviation of the scores, logits, at least 0; with 0 all actions tie.

    Returns:
        A game of A actions.

    Raises:
        GameError: Fewer than one action, a negative seed or spread.

    Source:
        Bradley and Terry, "Rank analysis of incomplete block designs", Biometrika 39 (1952).
    """
    game = noisy_bradley_terry(actions, seed, spread, noise=0.0)
    return PreferenceGame(game.P, name=titled(bradley_terry, actions, seed=seed, spread=spread))


def noisy_bradley_terry(actions: int = 50, seed: int = 0, spread: float = 1.0, noise: float = 1.0) -> PreferenceGame:
    r"""Scored actions with pairwise noise: mostly ordered, yet with cycles, as people's preferences are.

    ``P_ij = σ(s_i − s_j + ε_ij)`` with ``s_i ~ N(0, spread²)`` and antisymmetric ``ε_ij ~ N(0, noise²)``.

    Args:
        actions: A, at least 1.
        seed: Of NumPy's generator; the same seed gives the same game.
        spread: Standard deviation of the scores, logits, at least 0.
        noise: Standard deviation of the noise, logits, at least 0; with 0 the game is `bradley_terry`.

    Returns:
        A game of A actions.

    Raises:
        GameError: Fewer than one action, a negative seed, or a negative deviation.
    """
    check_count("actions", actions)
    check_between("spread", spread, 0.0, float("inf"), "logits")
    check_between("noise", noise, 0.0, float("inf"), "logits")
    generator = random_generator(seed)
    score = spread * generator.standard_normal(actions)
    upper = np.triu(noise * generator.standard_normal((actions, actions)), 1)
    logit = score[:, None] - score[None, :] + upper - upper.T
    title = titled(noisy_bradley_terry, actions, seed=seed, spread=spread, noise=noise)
    return PreferenceGame(sigmoid(logit), name=title)


def disc_game(
    actions: int = 50,
    seed: int = 0,
    strength: float = 2.0,
    discs: int = 1,
    form: Literal["logistic", "linear"] = "logistic",
) -> PreferenceGame:
    r"""Points drawn uniformly from the unit disc, each beating those counterclockwise of it: purely cyclic.

    See `game_of_points` for the formula and the equilibrium. With several discs the cyclic components are averaged.

    Args:
        actions: A, at least 1.
        seed: Of NumPy's generator; the same seed gives the same game.
        strength: k, the largest log-odds a pair can have, at least 0; at most 2 in the linear form.
        discs: Number of independent discs, at least 1: the game's log-odds have rank ``2 discs``.
        form: "logistic" or "linear".

    Returns:
        A game of A actions.

    Raises:
        GameError: A setting outside its range.

    Source:
        arXiv:1901.08106, the disc game.
    """
    check_count("actions", actions)
    check_count("discs", discs)
    generator = random_generator(seed)
    # The square root makes the area, not the radius, uniform.
    radius = np.sqrt(generator.random((actions, discs)))
    angle = 2.0 * np.pi * generator.random((actions, discs))
    points = radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    title = titled(disc_game, actions, seed=seed, strength=strength, discs=discs, form=form)
    return game_of_points(points, strength, form, name=title)


def game_of_points(
    points: ArrayLike,
    strength: float = 2.0,
    form: Literal["logistic", "linear"] = "logistic",
    name: str | None = None,
) -> PreferenceGame:
    r"""Disc game of given points: what counts is the oriented area between two of them.

    With ``c_ij = u_i × u_j = x_i y_j − y_i x_j``, averaged over the discs,
    ``P_ij = σ(k c_ij)`` (logistic) or ``P_ij = ½ + k c_ij / 4`` (linear, the logistic form's tangent at a tie).
    The paper's function has the opposite orientation, which only mirrors the points. Turning all points by one angle
    changes nothing. In the linear form with one disc a policy is an equilibrium if its mean point is the origin; where
    the origin is outside the points' convex hull, the most clockwise point beats all others and is the equilibrium.

    Args:
        points: Shape (A, 2), or (A, discs, 2) for several discs; each of length at most 1.
        strength: k, at least 0; at most 2 in the linear form, whose probabilities would leave [0, 1].
        form: "logistic" or "linear".
        name: Name of the game.

    Returns:
        A game of A actions.

    Raises:
        GameError: Points of another shape, not finite or outside the unit disc, or a setting outside its range.

    Source:
        arXiv:1901.08106, the disc game.
    """
    check_choice("form", form, DISC_FORMS)
    check_between("strength", strength, 0.0, 2.0 if form == "linear" else float("inf"), "log-odds")
    at = number_array(points, "points")
    at = at[:, None, :] if at.ndim == 2 else at
    if at.ndim != 3 or at.shape[-1] != 2 or 0 in at.shape:
        raise GameError(f"points have shape {np.shape(points)}, expected (A, 2), or (A, discs, 2) for several discs")
    length = np.hypot(at[..., 0], at[..., 1])
    if not (length <= 1.0 + 1e-9).all():
        worst = int(np.flatnonzero(~(length <= 1.0 + 1e-9).all(axis=1))[0])
        raise GameError(f"point {worst} is {at[worst].tolist()}, expected a length of at most 1; divide by the longest")
    x, y = at[..., 0], at[..., 1]
    half = x @ y.T / at.shape[1]
    logit = strength * (half - half.T)
    win_prob = sigmoid(logit) if form == "logistic" else np.clip(0.5 + logit / 4.0, 0.0, 1.0)
    return PreferenceGame(win_prob, name=f"points({len(at)})" if name is None else name)


def cyclic_block_game(
    blocks: int = 3, block_size: int = 4, seed: int = 0, win: float = 0.9, difference: float = 0.0
) -> PreferenceGame:
    """Blocks of near-clones in a cycle: many responses of a few styles, each style beating the styles behind it.

    Between blocks, as in `cyclic_game`, a block beats the half behind it with probability ``win``. Within a block
    ``P_ij = ½ + difference · U[−1, 1]``. The policy that gives each block the same share, and divides it by an
    equilibrium of the block on its own, is an equilibrium. With difference 0 the members are clones and any division
    will do: a test of methods where the equilibrium is not unique.

    Args:
        blocks: Number of blocks, at least 1; with an even number opposite blocks tie.
        block_size: Actions in a block, at least 1.
        seed: Of NumPy's generator; used where difference > 0.
        win: P(a block beats one behind it), in [1/2, 1].
        difference: Largest distance from a tie within a block, in [0, 1/2].

    Returns:
        A game of ``blocks · block_size`` actions, named "block.member".

    Raises:
        GameError: A setting outside its range.
    """
    check_count("blocks", blocks)
    check_count("block_size", block_size)
    check_count("blocks * block_size", blocks * block_size)
    check_between("win", win, 0.5, 1.0)
    check_between("difference", difference, 0.0, 0.5)
    generator = random_generator(seed)
    win_prob = np.kron(_circle(blocks, win), np.ones((block_size, block_size)))
    for block in range(blocks):
        own = slice(block * block_size, (block + 1) * block_size)
        deviation = difference * generator.uniform(-1.0, 1.0, (block_size, block_size))
        win_prob[own, own] = _from_upper(np.triu(0.5 + deviation, 1))
    title = titled(cyclic_block_game, f"{blocks} x {block_size}", seed=seed, win=win, difference=difference)
    names = [f"{block}.{member}" for block in range(blocks) for member in range(block_size)]
    return PreferenceGame(win_prob, actions=names, name=title)


def tournament(actions: int = 11, seed: int = 0, win: float = 1.0) -> PreferenceGame:
    """Every pair has a winner, drawn by a fair coin, that wins with one and the same probability.

    ``P_ij = win`` or ``1 − win``. The equilibrium (the optimal mixture of tournament theory, whose support is the
    bipartisan set) is unique, is played on an odd number of actions, and does not depend on ``win``; only the gap of
    other policies does, in proportion to ``win − ½``.

    Args:
        actions: A, at least 1.
        seed: Of NumPy's generator; the same seed gives the same winners.
        win: Probability with which a pair's winner wins, in [1/2, 1]; with 1/2 all actions tie.

    Returns:
        A game of A actions.

    Raises:
        GameError: A setting outside its range.

    Source:
        Fisher and Ryan, "Optimal strategies for a generalized 'scissors, paper, and stone' game", American Mathematical
        Monthly 99 (1992); Laffond, Laslier and Le Breton, "The bipartisan set of a tournament game", Games and Economic
        Behavior 5 (1993).
    """
    check_count("actions", actions)
    check_between("win", win, 0.5, 1.0)
    coin = random_generator(seed).random((actions, actions)) < 0.5
    title = titled(tournament, actions, seed=seed, win=win)
    return PreferenceGame(_from_upper(np.triu(np.where(coin, win, 1.0 - win), 1)), name=title)


def _circle(actions: int, win: float) -> FloatArray:
    """Win probabilities on a circle where each beats the half behind it."""
    ahead = (np.arange(actions)[:, None] - np.arange(actions)[None, :]) % actions
    return np.where((ahead == 0) | (2 * ahead == actions), 0.5, np.where(2 * ahead < actions, win, 1.0 - win))


def _from_upper(upper: FloatArray) -> FloatArray:
    """Whole matrix from the part above the diagonal; what ``upper`` holds elsewhere does not count."""
    above = np.triu(upper, 1)
    return above + np.tril(1.0 - above.T, -1) + 0.5 * np.eye(len(upper))
