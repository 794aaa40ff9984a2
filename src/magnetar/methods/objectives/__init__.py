"""Objectives: what one update does, as a closed form on exact games and as a loss on sampled responses."""

from magnetar.methods.objectives.anchored import AdaptiveMagneticDescent, Geometry
from magnetar.methods.objectives.base import Objective, OracleObjective, PayoffObjective, PayoffOracle, SampledObjective
from magnetar.methods.objectives.bradley_terry import BradleyTerryFit
from magnetar.methods.objectives.euclidean import AdaptiveSubgradient, ProjectedGradient
from magnetar.methods.objectives.hamiltonian import HamiltonianDescent
from magnetar.methods.objectives.policy_gradient import (
    KLEstimator,
    MagneticPolicyGradient,
    PolicyGradient,
    Proximal,
    RewardTransformedPolicyGradient,
)
from magnetar.methods.objectives.recall import Recall
from magnetar.methods.objectives.regression import PairwiseRegression, PointwiseRegression

__all__ = [
    "AdaptiveMagneticDescent",
    "AdaptiveSubgradient",
    "BradleyTerryFit",
    "Geometry",
    "HamiltonianDescent",
    "KLEstimator",
    "MagneticPolicyGradient",
    "Objective",
    "OracleObjective",
    "PairwiseRegression",
    "PayoffObjective",
    "PayoffOracle",
    "PointwiseRegression",
    "PolicyGradient",
    "ProjectedGradient",
    "Proximal",
    "Recall",
    "RewardTransformedPolicyGradient",
    "SampledObjective",
]
