"""One request on its way: what was decided, what is still to be decoded, and why it ended.

Invariant: `pending` holds exactly the decided tokens that the KV cache does not hold yet.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from whis_box.engine.grammar import Constraint
from whis_box.engine.model import Model
from whis_box.engine.protocol import Completion, FinishReason, GenerateRequest, TokenLogprob
from whis_box.engine.sampler import Logits, logprobs, make_sampler
from whis_box.errors import DeadlineError, RequestCancelledError, WhisError

RANK = {"interactive": 0, "normal": 1, "background": 2}


class Generation:
    """Owned by the engine's thread; `cancel` only sets a flag that is read between two decodes."""

    def __init__(
        self,
        request_id: str,
        request: GenerateRequest,
        prompt: list[int],
        constraint: Constraint | None,
        model: Model,
        now: float,
    ) -> None:
        self.id, self.request, self.constraint = request_id, request, constraint
        self.prompt: NDArray[np.int32] = np.array(prompt, dtype=np.int32)
        self.arrived_at, self.deadline_at = now, now + request.deadline_s
        self.exclusive = False
        """Runs alone, because the same request was there when the process died."""
        self.cancelled = False
        self.pending: list[int] = []
        self.output: list[int] = []
        self.n_cached = 0
        self.n_drafted = self.n_accepted = 0
        self.save_at = 0
        """Prompt length at which the KV state is kept for others; 0 keeps none."""
        self.admitted_at = self.first_token_at = self.ended_at = 0.0
        self.finish_reason: FinishReason | None = None
        self.error: WhisError | None = None
        self._model = model
        self._pick = make_sampler(request.temperature, request.seed, request.top_p, request.min_p)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._taken = 0
        self._logprobs: list[TokenLogprob] = []

    @property
    def rank(self) -> tuple[int, float]:
        """Order of service: priority, then arrival."""
        return RANK[self.request.priority], self.arrived_at

    @property
    def background(self) -> bool:
        """Whether it runs only when nothing else waits, and may be dropped."""
        return self.request.priority == "background"

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be done."""
        return self.finish_reason is not None or self.error is not None

    def check(self, now: float) -> None:
        """End it when its caller gave up or its time is over."""
        if self.ended:
            return
        if self.cancelled:
            self.fail(RequestCancelledError("the request was cancelled"), now)
        elif now > self.deadline_at:
            self.fail(
                DeadlineError(
                    f"the request did not finish within {self.request.deadline_s:.1f} s "
                    f"({len(self.output)} of {self.request.max_tokens} tokens were written)"
                ),
                now,
            )

    def fail(self, error: WhisError, now: float) -> None:
        """End without a result."""
        self.error, self.ended_at = error, now

    def decide(self, logits: Logits, now: float) -> list[int]:
        """Choose the next token; it and the tokens the grammar forces after it, none at the end."""
        if not self.output:
            self.first_token_at = self.first_token_at or now
        token = self._choose(logits)
        if self._model.is_end(token):
            self._finish("stop", now)
            return []
        forced = self.constraint.accept(token) if self.constraint else []
        decided = [token, *forced][: self.request.max_tokens - len(self.output)]
        self._record(decided, logits)
        if self.constraint and self.constraint.finished:
            self._finish("stop", now)
        elif len(self.output) >= self.request.max_tokens:
            self._finish("length", now)
        return decided

    def _choose(self, logits: Logits) -> int:
        """Pick freely first: the full mask costs a pass over the vocabulary, so it is made on rejection.

        Drawing again among the allowed tokens gives exactly the constrained distribution.
        """
        self._mask: NDArray[np.bool_] | None = None
        if self.constraint is None:
            return self._pick(logits)
        if not self.request.logprobs:
            token = self._pick(logits)
            if self.constraint.allows(token):
                return token
        self._mask = self.constraint.mask()
        return self._pick(np.where(self._mask, logits, -np.inf))

    def _record(self, decided: list[int], logits: Logits) -> None:
        if self.request.logprobs:
            own, best = logprobs(logits, self._mask, decided[0], self.request.logprobs)
            top = tuple((self._piece(token), value) for token, value in best)
            self._logprobs.append(TokenLogprob(self._piece(decided[0]), own, top))
            self._logprobs.extend(TokenLogprob(self._piece(token), 0.0) for token in decided[1:])
        self.output.extend(decided)
        for token in decided:
            self._text += self._decoder.decode(self._model.piece(token))

    def _piece(self, token: int) -> str:
        return self._model.piece(token).decode("utf-8", "replace")

    def _finish(self, reason: FinishReason, now: float) -> None:
        self.finish_reason, self.ended_at = reason, now
        self._text += self._decoder.decode(b"", final=True)

    def take_delta(self) -> str:
        """Text that was not taken yet; only whole characters."""
        delta, self._taken = self._text[self._taken :], len(self._text)
        return delta

    def completion(self) -> Completion:
        """The result of a finished generation."""
        assert self.finish_reason is not None
        return Completion(
            text=self._text,
            finish_reason=self.finish_reason,
            prompt_tokens=len(self.prompt),
            cached_tokens=self.n_cached,
            completion_tokens=len(self.output),
            ttft_ms=(self.first_token_at - self.arrived_at) * 1000,
            total_ms=(self.ended_at - self.arrived_at) * 1000,
            lane=self.request.lane,
            queue_ms=(self.admitted_at - self.arrived_at) * 1000,
            logprobs=tuple(self._logprobs),
            drafted_tokens=self.n_drafted,
            accepted_tokens=self.n_accepted,
        )


OnEnd = Callable[[Generation], None]
