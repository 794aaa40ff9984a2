"""Objectives: what one update does, as a closed form on exact games and as a loss on sampled responses."""

from magnetar.methods.objectives.actor_critic import ActorCritic
from magnetar.methods.objectives.anchored import AdaptiveMagneticDescent, Geometry
from magnetar.methods.objectives.base import (
    Objective,
    OracleObjective,
    PayoffObjective,
    PayoffOracle,
    SampledLoss,
    SampledObjective,
)
from magnetar.methods.objectives.bradley_terry import BradleyTerryFit
from magnetar.methods.objectives.direct_preference import DirectPreference, PairChoice
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
from magnetar.methods.objectives.regression import PairwiseRegression, PointwiseRegression, RegressionTarget
from magnetar.methods.objectives.reward_gradient import GroupRelativeGradient, LeaveOneOutGradient, PenaltyEstimator
from magnetar.methods.objectives.scores import RewardObjective

__all__ = [
    "ActorCritic",
    "AdaptiveMagneticDescent",
    "AdaptiveSubgradient",
    "BradleyTerryFit",
    "DirectPreference",
    "Geometry",
    "GroupRelativeGradient",
    "HamiltonianDescent",
    "KLEstimator",
    "LeaveOneOutGradient",
    "MagneticPolicyGradient",
    "Objective",
    "OracleObjective",
    "PairChoice",
    "PairwiseRegression",
    "PayoffObjective",
    "PayoffOracle",
    "PenaltyEstimator",
    "PointwiseRegression",
    "PolicyGradient",
    "ProjectedGradient",
    "Proximal",
    "Recall",
    "RegressionTarget",
    "RewardObjective",
    "RewardTransformedPolicyGradient",
    "SampledLoss",
    "SampledObjective",
]
