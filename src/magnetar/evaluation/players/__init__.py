"""Who can play a match-up: a loaded model, a role of a running training, a model to be loaded, an endpoint, a file."""

from magnetar.evaluation.players.base import Answer, GenerationRequest, Player, StreamingPlayer, as_responses
from magnetar.evaluation.players.endpoint import EndpointPlayer
from magnetar.evaluation.players.files import FilePlayer
from magnetar.evaluation.players.kept import kept_answers
from magnetar.evaluation.players.models import CheckpointPlayer, ModelPlayer, RolePlayer, generate_responses
from magnetar.evaluation.players.rendering import refuse_unreadable, rendering_note
from magnetar.evaluation.players.specs import PlayerKind, check_player_spec, make_player, player_digest, player_kind

__all__ = [
    "Answer",
    "CheckpointPlayer",
    "EndpointPlayer",
    "FilePlayer",
    "GenerationRequest",
    "ModelPlayer",
    "Player",
    "PlayerKind",
    "RolePlayer",
    "StreamingPlayer",
    "as_responses",
    "check_player_spec",
    "generate_responses",
    "kept_answers",
    "make_player",
    "player_digest",
    "player_kind",
    "refuse_unreadable",
    "rendering_note",
]
