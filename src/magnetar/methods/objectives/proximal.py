"""Euclidean proximal steps on a low-rank model of a game, solved to rounding by active sets."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from magnetar.numerics import project_to_simplex

__all__ = ["SkewModel", "proximal_equilibrium"]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

ROUNDING = 1e-13  # probabilities and slacks within it count as zero
ACTIVE_SET_ROUNDS = 20  # it settles in a few, or cycles
EASY = 10.0  # times the model's largest entry: so strong a pull settles at once
FIRST_FACTOR, SMALLEST_FACTOR = 0.5, 0.1  # from one pull to the next
CONTINUATION_STEPS = 200
DENSE_FROM = 8  # times the policies known, against the number of actions


@dataclass(frozen=True, eq=False)
class SkewModel:
    r"""Antisymmetric matrix ``Y Uᵀ − U Yᵀ + U K Uᵀ`` of low rank.

    Attributes:
        basis: U, orthonormal columns, shape (A, m).
        outside: Y, shape (A, m).
        inside: K, antisymmetric, shape (m, m).
    """

    basis: FloatArray
    outside: FloatArray
    inside: FloatArray

    @classmethod
    def fit(cls, policies: FloatArray, payoffs: FloatArray) -> "SkewModel":
        r"""The antisymmetric matrix of least Frobenius norm with ``Â v = payoff`` for every policy v.

        Args:
            policies: Linearly independent, shape (m, A).
            payoffs: Centred payoffs ``A v`` of an antisymmetric A, shape (m, A).

        Returns:
            The model.
        """
        basis, triangle = np.linalg.qr(policies.T)
        image = np.linalg.solve(triangle.T, payoffs).T  # A U
        inside = basis.T @ image
        inside = 0.5 * (inside - inside.T)
        return cls(basis, image - basis @ inside, inside)

    def __matmul__(self, vector: FloatArray) -> FloatArray:
        """The model times a vector, shape (A,)."""
        along = self.basis.T @ vector
        return self.outside @ along + self.basis @ (self.inside @ along - self.outside.T @ vector)

    def scale(self) -> float:
        """Upper bound of the model's largest entry, up to a small factor."""
        rows = np.sqrt(np.sum(self.outside**2, axis=1)) + np.sqrt(np.sum((self.basis @ self.inside) ** 2, axis=1))
        return float(rows.max())

    def dense(self) -> FloatArray:
        """The model as a matrix, shape (A, A)."""
        half = (self.outside + 0.5 * self.basis @ self.inside) @ self.basis.T
        return half - half.T

    def factors(self, support: BoolArray) -> tuple[FloatArray, FloatArray]:
        """F and J with ``Â_SS = F J Fᵀ`` on a support S of s actions, shapes (s, 2m) and (2m, 2m)."""
        m = self.basis.shape[1]
        core = np.block([[np.zeros((m, m)), np.eye(m)], [-np.eye(m), self.inside]])
        return np.hstack([self.outside[support], self.basis[support]]), core


def proximal_equilibrium(model: SkewModel, magnet: FloatArray, strength: float) -> FloatArray | None:
    r"""Equilibrium of the model game with a Euclidean pull towards the magnet.

    The one π in the simplex with ``⟨α(π − ρ) − Âπ, x − π⟩ ≥ 0`` for every x in the simplex: on the support S of π the
    linear system ``(α − Â_SS) π_S + λ = αρ_S, Σπ_S = 1`` holds, and elsewhere ``αρ + Âπ ≤ λ``. The support is improved
    all at once until it settles, from the magnet's. Where it cycles, the same is done for stronger pulls first, which
    are easier, each starting from the support of the last.

    Args:
        model: Â.
        magnet: ρ, probabilities, shape (A,).
        strength: α, positive.

    Returns:
        π, probabilities, shape (A,), for the pull asked for or the least that could be solved; None if none could.
    """
    # With many policies known the factors are as large as the matrix itself, whose blocks then cost less.
    matrix = model.dense() if DENSE_FROM * model.basis.shape[1] > len(magnet) else None
    found = _settle(model, matrix, magnet, strength, magnet > 0)
    if found is not None:
        return _policy(found)
    pull = max(EASY * model.scale(), strength)
    support = project_to_simplex(magnet + (model @ magnet) / pull) > 0
    factor, solved_pull, best = FIRST_FACTOR, pull, None
    for _ in range(CONTINUATION_STEPS):
        found = _settle(model, matrix, magnet, pull, support)
        if found is not None:
            best, support, solved_pull = found, found > 0, pull
            if pull <= strength:
                break
            factor = max(factor * 0.8, SMALLEST_FACTOR)
        elif best is None:
            return None
        else:  # too far at once
            factor = factor**0.3
        pull = max(factor * solved_pull, strength)
    return None if best is None else _policy(best)


def _settle(
    model: SkewModel, matrix: FloatArray | None, magnet: FloatArray, strength: float, support: BoolArray
) -> FloatArray | None:
    """Improve the support until it stays; None if it does not."""
    for _ in range(ACTIVE_SET_ROUNDS):
        policy, slack = _on_support(model, matrix, magnet, strength, support)
        improved = np.where(support, policy > -ROUNDING, slack > ROUNDING)
        if (improved == support).all():
            return policy
        if not improved.any():
            return None
        support = improved
    return None


def _on_support(
    model: SkewModel, matrix: FloatArray | None, magnet: FloatArray, strength: float, support: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Solution of the linear system on a support, zero elsewhere; and what each action would gain over λ."""
    size = int(np.count_nonzero(support))
    right = np.stack([strength * magnet[support], np.ones(size)], axis=1)
    if matrix is not None:
        block = matrix[np.ix_(support, support)]
        solved = np.linalg.solve(strength * np.eye(size) - block, right)
    else:  # Woodbury: (α − F J Fᵀ)⁻¹ b = (b + F (α J⁻¹ − FᵀF)⁻¹ Fᵀ b) / α, without inverting J
        factor, core = model.factors(support)
        rank = factor.shape[1]
        inner = np.linalg.solve(strength * np.eye(rank) - core @ (factor.T @ factor), core @ (factor.T @ right))
        solved = (right + factor @ inner) / strength
    multiplier = (solved[:, 0].sum() - 1.0) / solved[:, 1].sum()
    policy = np.zeros_like(magnet)
    policy[support] = solved[:, 0] - multiplier * solved[:, 1]
    image = model @ policy if matrix is None else matrix @ policy
    return policy, strength * magnet + image - multiplier


def _policy(values: FloatArray) -> FloatArray:
    positive = np.maximum(values, 0.0)
    return positive / positive.sum()
