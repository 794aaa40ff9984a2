"""Where methods with a fixed reference stop on the enumerable model: fixed points, found without training anything."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnetar.errors import GameError
from magnetar.games import PreferenceGame
from magnetar.methods import (
    DirectPreference,
    FixedMagnet,
    MagneticPolicyGradient,
    Method,
    PairwiseRegression,
    RewardTransformedPolicyGradient,
)
from magnetar.methods.objectives.bradley_terry import fit_bradley_terry
from magnetar.numerics import log_normalize

__all__ = ["ResponseTree", "limit_of"]

FloatArray = NDArray[np.float64]

DAMPING = 0.03  # of a step in log-probabilities, in units of the pull: small enough for any game of this kind
TOLERANCE = 1e-9  # nats
MAX_STEPS = 50_000


@dataclass(frozen=True)
class ResponseTree:
    """The responses as paths in a tree of tokens, so that a policy is a next-token distribution at every prefix.

    Attributes:
        on_path: Whether a response (column) passes a node (row); a node is a prefix of at least one token.
        parent: Row of each node's parent; −1 for the root.
        leaf: Row at which each response ends.
    """

    on_path: FloatArray
    parent: NDArray[np.int64]
    leaf: NDArray[np.int64]

    @classmethod
    def of(cls, responses: list[list[int]]) -> "ResponseTree":
        """The tree of these token lists, none of which is the beginning of another."""
        nodes = sorted({tuple(r[:t]) for r in responses for t in range(1, len(r) + 1)}, key=lambda n: (len(n), n))
        row = {node: k for k, node in enumerate(nodes)}
        on_path = np.zeros((len(nodes), len(responses)))
        for a, response in enumerate(responses):
            for t in range(1, len(response) + 1):
                on_path[row[tuple(response[:t])], a] = 1.0
        parent = np.array([row[node[:-1]] if len(node) > 1 else -1 for node in nodes])
        return cls(on_path, parent, np.array([row[tuple(r)] for r in responses]))

    def conditionals(self, policy_A: FloatArray) -> FloatArray:
        """Log-probability of each node given its parent, shape (nodes,), nats."""
        log_mass = np.log(self.on_path @ policy_A)
        return log_mass - np.append(log_mass, 0.0)[self.parent]

    def policy(self, conditionals: FloatArray) -> FloatArray:
        """Probabilities of the responses from next-token logits at every prefix, which need not be normalised."""
        return np.exp(self.on_path.T @ self.normalize(conditionals))

    def normalize(self, logits: FloatArray) -> FloatArray:
        """Log-probabilities of each node given its parent."""
        largest = np.full(len(self.parent) + 1, -np.inf)
        np.maximum.at(largest, self.parent, logits)
        total = np.zeros(len(self.parent) + 1)
        np.add.at(total, self.parent, np.exp(logits - largest[self.parent]))
        return logits - largest[self.parent] - np.log(total[self.parent])

    def values(self, policy_A: FloatArray, payoff_A: FloatArray) -> FloatArray:
        """Expected payoff of what follows each node, shape (nodes,)."""
        return (self.on_path @ (policy_A * payoff_A)) / (self.on_path @ policy_A)


def limit_of(
    method: Method, game: PreferenceGame, responses: list[list[int]], reference_A: FloatArray
) -> FloatArray | None:
    r"""The policy at which a method with a fixed reference stands still on a language model.

    Objectives on whole responses (regressions, reward transformation) stop at ``π ∝ ref exp(q/α)``, with q the payoffs
    against the method's own opponent. The magnet's KL term of `MagneticPolicyGradient` is one of next-token
    distributions at prefixes that it takes as given, so its fixed point is ``π(a|s) ∝ ref(a|s) exp(Q(s, a)/α)`` with Q
    the expected payoff after token a; for one token that is the same. The DPO loss stops at ``π ∝ ref exp(s/β)`` with
    scores s fitted to pairs of π itself.

    Args:
        method: Any; those without a fixed reference have no such policy.
        game: Between the responses.
        responses: Their tokens.
        reference_A: Where training starts, positive probabilities, shape (A,).

    Returns:
        Probabilities, shape (A,); None for a method that has no fixed reference.

    Raises:
        GameError: No fixed point was found.
    """
    objective = method.objective
    if not isinstance(method.magnet, FixedMagnet):
        return None
    tree, log_reference = ResponseTree.of(responses), np.log(reference_A)
    if isinstance(objective, MagneticPolicyGradient) and objective.needs_magnet:
        start = tree.conditionals(reference_A)

        def better_tokens(logits: FloatArray) -> FloatArray:
            policy = tree.policy(logits)
            return start + tree.values(policy, game.payoff(policy)) / objective.magnet_strength

        return tree.policy(_fixed_point(better_tokens, start, tree.normalize))
    if isinstance(objective, RewardTransformedPolicyGradient):
        strength, weight = objective.magnet_strength, method.opponent.reference_weight

        def better(logits: FloatArray) -> FloatArray:
            policy = np.exp(logits)
            if method.opponent.role == "mixture":
                policy = token_mixture(tree, policy, reference_A, weight)
            return log_reference + game.payoff(policy) / strength

    elif isinstance(objective, PairwiseRegression) and objective.needs_magnet:

        def better(logits: FloatArray) -> FloatArray:
            return log_reference + game.payoff(np.exp(logits)) * objective.scale / objective.magnet_weight

    elif isinstance(objective, DirectPreference):

        def better(logits: FloatArray) -> FloatArray:
            return log_reference + fit_bradley_terry(game.P, np.exp(logits)) / objective.kl_coef

    else:
        return None
    return np.exp(_fixed_point(better, log_reference, log_normalize))


def token_mixture(tree: ResponseTree, policy_A: FloatArray, reference_A: FloatArray, weight: float) -> FloatArray:
    """Probabilities of responses whose tokens are each drawn from ``π^(1−w) ref^w``, normalised at every prefix."""
    return tree.policy((1.0 - weight) * tree.conditionals(policy_A) + weight * tree.conditionals(reference_A))


def _fixed_point(better, start: FloatArray, normalize) -> FloatArray:  # type: ignore[no-untyped-def]
    """Follow ``x ← (1 − d) x + d better(x)`` until it stands still."""
    logits = normalize(start)
    for _ in range(MAX_STEPS):
        aim = normalize(better(logits))
        if np.abs(aim - logits).max() < TOLERANCE:
            return logits
        logits = normalize((1.0 - DAMPING) * logits + DAMPING * aim)
    raise GameError(
        f"no fixed point after {MAX_STEPS} damped steps: the pull is too weak for this game; raise magnet_strength or "
        "kl_coef"
    )
