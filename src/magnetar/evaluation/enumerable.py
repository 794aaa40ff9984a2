"""A real language model whose every response can be listed: policy, equilibrium and duality gap are exact.

A two-layer transformer over a handful of words, responses of at most three tokens, a judge that looks its answers up in
a matrix. Whatever trainer runs on it is the one that runs on large models.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from magnetar.games import PreferenceGame
from magnetar.judges import MatrixJudge, ScoreFunctionJudge
from magnetar.methods.objectives.bradley_terry import fit_bradley_terry
from magnetar.rollout.enumerating import EnumeratingEngine, all_responses

__all__ = ["EnumerableGame", "cyclic_style_matrix"]

WORDS = "rock", "paper", "scissors", "well", "fire", "water"
EOS = "<eos>"
PROMPT = "rock paper"


def cyclic_style_matrix(texts: list[str], seed: int = 0, noise: float = 0.02) -> NDArray[np.float64]:
    """Win probabilities between responses of three styles that beat each other in a circle.

    A response's style is set by its words; the styles play biased rock–paper–scissors
    ``[[.5, .9, .2], [.1, .5, .8], [.8, .2, .5]]``, and every pair has a small skew of its own, so that the game is not
    just its three styles.

    Args:
        texts: The responses.
        seed: Of the assignment and of the pairs' skews.
        noise: Largest skew, in [0, 0.1].

    Returns:
        Shape (A, A), in [0, 1], ``P + P.T = 1``.
    """
    rng = np.random.default_rng(seed)
    value = {word: k for k, word in enumerate(WORDS)}
    style = np.array([(sum(value[w] for w in text.split()) + len(text.split())) % 3 for text in texts])
    circle = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]])
    skew = rng.uniform(-noise, noise, size=(len(texts), len(texts)))
    return circle[style][:, style] + (skew - skew.T) / 2


@dataclass(frozen=True)
class EnumerableGame:
    """The pieces: tokenizer, responses, the exact game, and its judge.

    Attributes:
        tokenizer: One token per word and one for the end of sequence.
        responses: Token lists of all A responses.
        texts: The same as text.
        game: The preference game between responses.
        max_new_tokens: Longest response in tokens.
    """

    tokenizer: PreTrainedTokenizerFast
    responses: list[list[int]]
    texts: list[str]
    game: PreferenceGame
    max_new_tokens: int

    @classmethod
    def build(cls, num_words: int = 4, max_new_tokens: int = 3, seed: int = 0) -> "EnumerableGame":
        """Make the game.

        Args:
            num_words: Words of the vocabulary, 1 to 6.
            max_new_tokens: Longest response in tokens, at least 1.
            seed: Of the win probabilities.

        Returns:
            A game with ``1 + W + … + W^L`` responses (85 by default).
        """
        vocabulary = {EOS: 0} | {word: k + 1 for k, word in enumerate(WORDS[:num_words])}
        backend = Tokenizer(models.WordLevel(vocabulary, unk_token=EOS))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend, eos_token=EOS, pad_token=EOS, clean_up_tokenization_spaces=False
        )
        responses = all_responses(range(1, num_words + 1), 0, max_new_tokens)
        texts = [str(tokenizer.decode(r, skip_special_tokens=True)) for r in responses]
        game = PreferenceGame(cyclic_style_matrix(texts, seed))
        return cls(tokenizer, responses, texts, game, max_new_tokens)

    def model(self, seed: int = 0, *, skew: float = 1.0, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
        """A randomly initialised two-layer transformer of width 32.

        Args:
            seed: Of the weights.
            skew: Scale of the output layer; larger gives a first policy further from uniform.
            dtype: Of the weights.

        Returns:
            The model, in eval mode.
        """
        config = LlamaConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=32,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config)
            nn.init.normal_(model.lm_head.weight, std=skew / config.hidden_size**0.5)
        return model.to(dtype).eval()  # type: ignore[return-value]

    def judge(self) -> MatrixJudge:
        """The judge that looks win probabilities up."""
        return MatrixJudge(self.texts, self.game.P)

    def fitted_scores(self, policy_A: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bradley–Terry scores fitted to the preferences between responses of a policy, in logits, shape (A,)."""
        return fit_bradley_terry(self.game.P, policy_A)

    def scoring_judge(self, score_A: NDArray[np.float64]) -> ScoreFunctionJudge:
        """A judge that looks one score up for each response.

        Args:
            score_A: In logits, shape (A,), finite.
        """
        score = dict(zip(self.texts, score_A.tolist(), strict=True))

        def fitted_score(prompts: list[str], responses: list[str]) -> list[float]:
            return [score[text] for text in responses]

        digest = hashlib.sha256(np.ascontiguousarray(score_A).tobytes()).hexdigest()
        return ScoreFunctionJudge(fitted_score, name="fitted scores", version=digest)

    def engine(self) -> EnumeratingEngine:
        """The engine that lists every response."""
        return EnumeratingEngine(self.tokenizer, self.responses)

    def policy(self, model: nn.Module) -> NDArray[np.float64]:
        """Exact probabilities of all responses, shape (A,)."""
        prompt_ids = [self.tokenizer(PROMPT)["input_ids"]]
        with torch.no_grad():
            logp_A = self.engine().log_policy(model, prompt_ids)[0].double()  # type: ignore[arg-type]
        return logp_A.exp().cpu().numpy()

    def duality_gap(self, model: nn.Module) -> float:
        """Exact duality gap of the model in the original game, in [0, 1]."""
        policy = self.policy(model)
        return self.game.duality_gap(policy / policy.sum())
