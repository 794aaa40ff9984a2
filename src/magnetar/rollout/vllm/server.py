"""A vLLM server, spoken to over HTTP: tokens go in, tokens and log-probabilities come out."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor

from magnetar.errors import ConfigError, RolloutError
from magnetar.rollout.vllm.backend import EngineFacts, Sample, Sampling
from magnetar.rollout.vllm.files import weight_files
from magnetar.rollout.vllm.settings import ServerSettings, server_command

__all__ = ["ServerBackend"]

PROBE = "Naïve façade 東京 <|im_end|></s> 12345 \n\tdef f(x): return x ** 2"
"""A text that different tokenizers hardly ever cut alike."""
AT_ONCE = 64
"""Requests under way; the server batches them."""


class ServerBackend:
    """A server that the user started with `server_command`."""

    def __init__(self, settings: ServerSettings, tokenizer: Any) -> None:
        """Wait until the server answers and check that it is of use.

        Args:
            settings: Where it is.
            tokenizer: The trained model's; the server's must cut a text alike.

        Raises:
            RolloutError: It does not answer in time.
            ConfigError: It was started otherwise than needed, or has another tokenizer.
        """
        self._settings = settings
        self._url = settings.base_url.rstrip("/").removesuffix("/v1")
        # A tokenizer knows where it was loaded from: the trained model's name or folder.
        self._wait(str(getattr(tokenizer, "name_or_path", "") or "MODEL"))
        self._model = str(self._ask("/v1/models")["data"][0]["id"])
        self._described()
        cut = self._ask("/tokenize", {"model": self._model, "prompt": PROBE, "add_special_tokens": False})["tokens"]
        expected = tokenizer(PROBE, add_special_tokens=False)["input_ids"]
        if list(cut) != list(expected):
            raise ConfigError(
                f"the vLLM server at {self._url} serves {self._model!r}, whose tokenizer is not the trained model's: "
                f"it cuts a text into {cut[:8]}…, expected {list(expected)[:8]}…; start it with the trained model"
            )

    def facts(self) -> EngineFacts:
        """See `Backend.facts`."""
        return EngineFacts.of_workers(self._workers("magnetar_describe"))

    def wake(self) -> bool:
        """A server keeps its memory."""
        return True

    def load(self, weights: Iterable[tuple[str, Tensor]], stamp: str, *, whole: bool) -> None:
        """See `Backend.load`."""
        with weight_files(weights, self._settings.sync_folder) as paths:
            arguments = {"paths": paths, "stamp": stamp, "whole": "true" if whole else "false"}
            answers = self._workers("magnetar_load_files", arguments)
        errors = [answer["error"] for answer in answers if "error" in answer]
        if errors:
            hint = ""
            if "No such file" in errors[0] or "FileNotFound" in errors[0]:
                hint = (
                    f"; it does not see {self._settings.sync_folder!r}: set vllm_sync_folder to a folder that it sees"
                )
            raise RolloutError(f"the vLLM server at {self._url} cannot take the trainer's weights: {errors[0]}{hint}")
        if not self._ask("/reset_prefix_cache", {}).get("success", True):
            raise RolloutError(
                f"the vLLM server at {self._url} keeps what it computed with the old weights, since it is answering "
                "somebody else; give each run a server of its own"
            )

    def sample(self, prompt_ids: list[list[int]], seeds: Sequence[int], sampling: Sampling) -> list[list[Sample]]:
        """See `Backend.sample`; one request a prompt."""

        def ask(prompt: list[int], seed: int) -> list[Sample]:
            body = {"model": self._model, "prompt": prompt, "return_token_ids": True, **sampling.options(seed)}
            choices = sorted(self._ask("/v1/completions", body)["choices"], key=lambda choice: choice["index"])
            return [Sample(list(c["token_ids"]), [float(v) for v in c["logprobs"]["token_logprobs"]]) for c in choices]

        with ThreadPoolExecutor(min(AT_ONCE, len(prompt_ids))) as pool:
            return list(pool.map(ask, prompt_ids, seeds))

    def rest(self) -> None:
        """A server keeps its memory."""

    def close(self) -> None:
        """A server belongs to the user."""

    def _workers(self, method: str, arguments: dict[str, str] | None = None) -> list[dict[str, Any]]:
        """Call a method of the worker extension on every worker."""
        return self._ask("/collective_rpc", {"method": method, "kwargs": arguments or {}})["results"]

    def _described(self) -> list[dict[str, Any]]:
        """The first call: a server that refuses it was started without what it needs."""
        try:
            return self._workers("magnetar_describe")
        except _Refused as refused:
            if refused.status not in (404, 500, 501):
                raise
            missing = "VLLM_SERVER_DEV_MODE=1" if refused.status == 404 else "--worker-extension-cls"
            raise ConfigError(
                f"the vLLM server at {self._url} cannot be given weights ({refused}): it was started without "
                f"{missing}; start it with: {server_command(self._model)}"
            ) from refused

    def _wait(self, trained: str) -> None:
        deadline = time.monotonic() + self._settings.timeout_seconds
        while True:
            try:
                self._ask("/health", seconds=10.0)
                return
            except RolloutError as error:
                if time.monotonic() >= deadline:
                    raise RolloutError(
                        f"no vLLM server answered at {self._url} within vllm_server_timeout="
                        f"{self._settings.timeout_seconds:g} seconds ({error}); start one with: "
                        f"{server_command(trained)}"
                    ) from error
            time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))

    def _ask(self, path: str, body: dict[str, Any] | None = None, *, seconds: float | None = None) -> Any:
        """Send a request (POST if there is a body) and read the answer."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get("VLLM_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data=data, headers=headers)
        timeout = self._settings.timeout_seconds if seconds is None else seconds
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                text = response.read()
            return json.loads(text) if text.strip() else {}
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace").strip()[:300]
            raise _Refused(
                f"the vLLM server at {self._url} refused {path}: HTTP {error.code}: {detail}", error.code
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RolloutError(
                f"the vLLM server at {self._url} does not answer {path}: {type(error).__name__}: {error}; look at its "
                "log and start it again"
            ) from error


class _Refused(RolloutError):
    """The server answered that it will not."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
