"""The skew-symmetric score against its matrix form, and what it can represent."""

import numpy as np
import pytest
import torch
from scipy.linalg import block_diag

from magnetar.modeling.general_preference import skew_score, unit_length


@pytest.mark.parametrize("size", [2, 4, 10])
def test_the_score_is_the_inner_product_with_the_rotated_embedding(size: int):
    rng = np.random.default_rng(size)
    first, second = rng.normal(size=(2, 7, size))
    rotation = block_diag(*[np.array([[0.0, -1.0], [1.0, 0.0]])] * (size // 2))
    expected = [w @ rotation @ v for v, w in zip(first, second, strict=True)]
    np.testing.assert_allclose(skew_score(first, second), expected, atol=1e-12)
    torch.testing.assert_close(
        skew_score(torch.tensor(first), torch.tensor(second)), torch.tensor(expected), atol=1e-12, rtol=0
    )


def test_exchanging_the_responses_changes_the_sign_and_nothing_else():
    embeddings = np.random.default_rng(0).normal(size=(9, 6))
    scores = skew_score(embeddings[:, None], embeddings[None])
    np.testing.assert_array_equal(scores, -scores.T)
    assert scores.shape == (9, 9)


def test_three_directions_make_a_cycle():
    angles = np.array([0.0, 1.0, 2.0]) * 2 * np.pi / 3
    rock, paper, scissors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for winner, loser in ((rock, paper), (paper, scissors), (scissors, rock)):
        assert skew_score(winner, loser) == pytest.approx(np.sin(2 * np.pi / 3))


@pytest.mark.parametrize("count", [2, 5, 8])
def test_every_skew_symmetric_matrix_of_scores_is_represented(count: int):
    raw = np.random.default_rng(count).normal(size=(count, count))
    wanted = raw - raw.T
    # i S is Hermitian, so S = 2 Σ λ Im(z z*) over its positive eigenvalues: each is a plane of the embedding.
    weights, vectors = np.linalg.eigh(1j * wanted)
    planes = [np.sqrt(2 * weights[k]) * vectors[:, k] for k in range(count) if weights[k] > 1e-9]
    assert len(planes) == count // 2
    embeddings = np.stack([part for plane in planes for part in (plane.imag, plane.real)], axis=1)
    np.testing.assert_allclose(skew_score(embeddings[:, None], embeddings[None]), wanted, atol=1e-10)


def test_unit_length_bounds_the_score_and_keeps_directions():
    embeddings = np.random.default_rng(1).normal(size=(50, 4)) * 30
    scaled = unit_length(embeddings)
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=-1), 1.0, atol=1e-12)
    np.testing.assert_allclose(scaled * np.linalg.norm(embeddings, axis=-1, keepdims=True), embeddings, atol=1e-12)
    assert np.abs(skew_score(scaled[:, None], scaled[None])).max() <= 1.0


def test_gradients_are_right_and_finite_at_zero():
    both = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first, second = both[0].requires_grad_(), both[1].requires_grad_()

    def score(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return skew_score(unit_length(a), unit_length(b))

    assert torch.autograd.gradcheck(score, (first, second))
    zero = torch.zeros(1, 4, requires_grad=True)
    value = score(zero, torch.ones(1, 4))
    value.sum().backward()
    assert value.item() == 0.0
    assert zero.grad is not None and torch.isfinite(zero.grad).all()


@pytest.mark.parametrize("sizes", [(3, 3), (2, 4), (0, 0)])
def test_embeddings_must_have_one_even_size(sizes: tuple[int, int]):
    with pytest.raises(ValueError, match="expected one even number"):
        skew_score(np.ones(sizes[0]), np.ones(sizes[1]))
