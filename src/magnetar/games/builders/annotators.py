"""Games from annotators who disagree: each is consistent, and together they can go in circles."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from magnetar.errors import GameError
from magnetar.games.checks import check_between, check_choice, check_count, random_generator, sigmoid, titled
from magnetar.games.game import PreferenceGame

__all__ = ["AnnotatorForm", "annotator_game", "condorcet_cycle", "random_annotators", "ranking_game"]

AnnotatorForm: TypeAlias = Literal["vote", "probability"]
"""How annotators' utilities become win probabilities: each votes, or each prefers with a Bradley–Terry probability."""

FORMS = ("vote", "probability")


def annotator_game(
    utilities: ArrayLike,
    weights: ArrayLike | None = None,
    form: AnnotatorForm = "vote",
    temperature: float = 1.0,
    actions: Sequence[str] | None = None,
    name: str | None = None,
) -> PreferenceGame:
    r"""Game of a population of annotators, each with a utility for every action.

    "vote": ``P_ij = Σ_n w_n ( [u_ni > u_nj] + ½ [u_ni = u_nj] )``, the weighted share who prefer i;
    "probability": ``P_ij = Σ_n w_n σ((u_ni − u_nj) / temperature)``, the average of Bradley–Terry annotators. As the
    temperature goes to 0 the second becomes the first. Either may be intransitive, though no annotator is.

    Args:
        utilities: Shape (annotators, A), any finite numbers.
        weights: Shape (annotators,), at least 0, not all 0; divided by their sum. None weighs all alike.
        form: "vote" or "probability".
        temperature: Positive, in units of utility; used by "probability".
        actions: Names of the actions.
        name: Name of the game.

    Returns:
        A game of A actions.

    Raises:
        GameError: Utilities or weights of another shape or not finite, or a setting outside its range.
    """
    check_choice("form", form, FORMS)
    try:
        utility_NA = np.array(utilities, dtype=np.float64)
        weight_N = np.ones(len(utility_NA)) if weights is None else np.array(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise GameError(f"utilities and weights must be arrays of numbers: {error}") from error
    if utility_NA.ndim != 2 or 0 in utility_NA.shape:
        raise GameError(f"utilities have shape {utility_NA.shape}, expected (annotators, actions)")
    if not np.isfinite(utility_NA).all():
        annotator, action = np.argwhere(~np.isfinite(utility_NA))[0]
        raise GameError(f"utilities[{annotator}, {action}] = {utility_NA[annotator, action]}, expected a finite number")
    if weight_N.shape != (len(utility_NA),):
        raise GameError(f"weights have shape {weight_N.shape}, expected ({len(utility_NA)},): one for each annotator")
    if not (np.isfinite(weight_N).all() and (weight_N >= 0).all() and weight_N.sum() > 0):
        raise GameError(f"weights are {weight_N.tolist()}, expected numbers of at least 0 that are not all 0")
    if not 0 < temperature < float("inf"):
        raise GameError(f"temperature is {temperature}, expected a positive finite number (units of utility)")
    win_prob = np.zeros((utility_NA.shape[1],) * 2)
    # One annotator at a time: a whole (annotators, A, A) array would not fit for large games.
    for weight, utility in zip(weight_N / weight_N.sum(), utility_NA, strict=True):
        difference = utility[:, None] - utility[None, :]
        win_prob += weight * (
            0.5 * (1.0 + np.sign(difference)) if form == "vote" else sigmoid(difference / temperature)
        )
    title = f"annotator_game({len(utility_NA)} annotators)" if name is None else name
    return PreferenceGame(np.clip(win_prob, 0.0, 1.0), actions=actions, name=title)


def ranking_game(
    rankings: Sequence[Sequence[str]],
    weights: ArrayLike | None = None,
    form: AnnotatorForm = "vote",
    temperature: float = 1.0,
    name: str | None = None,
) -> PreferenceGame:
    """Game of annotators who each rank the same actions, best first.

    Examples:
        >>> game = ranking_game([["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]])
        >>> [round(float(p), 3) for p in (game.P[0, 1], game.P[1, 2], game.P[2, 0])]
        [0.667, 0.667, 0.667]

    Args:
        rankings: One ranking an annotator: every action's name once. Actions are numbered as in the first.
        weights: See `annotator_game`.
        form: See `annotator_game`; the utility of the place p, from 0, is −p.
        temperature: See `annotator_game`, in places.
        name: Name of the game.

    Returns:
        A game whose actions bear the rankings' names.

    Raises:
        GameError: No ranking, rankings of different actions, or a setting outside its range.
    """
    if not rankings or not rankings[0]:
        raise GameError("there is no ranking, expected at least one, such as ['a', 'b', 'c'], best first")
    actions = [str(action) for action in rankings[0]]
    for annotator, ranking in enumerate(rankings):
        if sorted(map(str, ranking)) != sorted(set(actions)):
            raise GameError(
                f"ranking {annotator} is {list(ranking)}, expected each of {', '.join(sorted(set(actions)))} once"
            )
    utilities = [[-float([str(a) for a in ranking].index(action)) for action in actions] for ranking in rankings]
    return annotator_game(utilities, weights, form, temperature, actions, name or "ranking_game")


def condorcet_cycle(actions: int = 3, form: AnnotatorForm = "vote", temperature: float = 1.0) -> PreferenceGame:
    """Condorcet's paradox: as many annotators as actions, the n-th ranking n, n + 1, …, A − 1, 0, …, n − 1.

    In the vote form ``P_ij = (A − d) / A`` with ``d = (j − i) mod A`` for d > 0: with three actions each beats the next
    with probability 2/3. All actions look alike, so the uniform policy is an equilibrium.

    Args:
        actions: A, at least 1.
        form: "vote", or "probability" with a utility of −1 for each place down.
        temperature: Positive, in places; used by "probability".

    Returns:
        A game of A actions.

    Raises:
        GameError: A setting outside its range.

    Source:
        Condorcet, "Essai sur l'application de l'analyse à la probabilité des décisions" (1785).
    """
    check_count("actions", actions)
    place_NA = (np.arange(actions)[None, :] - np.arange(actions)[:, None]) % actions
    title = titled(condorcet_cycle, actions, form=form, temperature=temperature)
    return annotator_game(-place_NA, None, form, temperature, name=title)


def random_annotators(
    actions: int = 20,
    seed: int = 0,
    annotators: int = 3,
    agreement: float = 0.0,
    form: AnnotatorForm = "vote",
    temperature: float = 1.0,
) -> PreferenceGame:
    r"""Annotators with random utilities that share a common part: from one mind to as many as annotators.

    ``u_ni = √agreement · c_i + √(1 − agreement) · e_ni`` with independent standard normal ``c_i`` and ``e_ni``; all
    annotators weigh alike. See `annotator_game`.

    Args:
        actions: A, at least 1.
        seed: Of NumPy's generator; the same seed gives the same game.
        annotators: Number of annotators, at least 1.
        agreement: Correlation between two annotators' utilities, in [0, 1]; with 1 there is one order.
        form: "vote" or "probability".
        temperature: Positive, in standard deviations of utility; used by "probability".

    Returns:
        A game of A actions.

    Raises:
        GameError: A setting outside its range.
    """
    check_count("actions", actions)
    check_count("annotators", annotators)
    check_between("agreement", agreement, 0.0, 1.0)
    generator = random_generator(seed)
    common = generator.standard_normal(actions)
    own = generator.standard_normal((annotators, actions))
    utilities = np.sqrt(agreement) * common + np.sqrt(1.0 - agreement) * own
    settings = {"annotators": annotators, "agreement": agreement, "form": form, "temperature": temperature}
    title = titled(random_annotators, actions, seed=seed, **settings)
    return annotator_game(utilities, None, form, temperature, name=title)
