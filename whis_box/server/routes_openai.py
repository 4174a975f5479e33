"""The OpenAI-compatible routes: chat, models, embeddings and stateless responses, all of them grounded.

Invariant: a schema that is not ours is refused, never ignored; the text of an answer is what was checked.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from whis_box.errors import InputError, WhisError
from whis_box.ingest.alerts import parse_event
from whis_box.knowledge.facets import Filter
from whis_box.schemas import Answer, Timings, Triage
from whis_box.server import sse
from whis_box.server.body import StrictRoute
from whis_box.server.deps import AskCall, TheCaller, TheService, require, responses
from whis_box.server.failures import HttpError, as_envelope
from whis_box.server.service import Call, Service
from whis_box.server.wire import AskRequest
from whis_box.server.wire_openai import (
    ChatMessage,
    ChatRequest,
    EmbeddingsRequest,
    ModelCard,
    ModelList,
    ResponseFormat,
    ResponsesRequest,
)

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["openai"])
EMBEDDER = "whis-embedder"
ANSWER_SCHEMA, TRIAGE_SCHEMA = "whis_answer", "whis_triage"
DONE = "data: [DONE]\n\n"


@router.get("/models", response_model=ModelList, responses=responses())
async def models(caller: TheCaller, service: TheService) -> ModelList:
    """Every name that `model` may have."""
    return ModelList(data=[_card(service, name) for name in _names(service)])


@router.get("/models/{model_id}", response_model=ModelCard, responses=responses(404))
async def model(model_id: str, caller: TheCaller, service: TheService) -> ModelCard:
    """One of them."""
    if model_id not in _names(service):
        known = ", ".join(_names(service))
        raise HttpError(404, "model_not_found", f"model {model_id[:80]!r} is not loaded; there are {known}")
    return _card(service, model_id)


def _names(service: Service) -> list[str]:
    return ["whis", *service.model_names(), EMBEDDER]


def _card(service: Service, name: str) -> ModelCard:
    return ModelCard(id=name, created=service.opened_unix)


@router.post("/chat/completions", response_class=Response, responses=responses(404))
async def chat(asked: ChatRequest, call: AskCall, service: TheService) -> Response:
    """Answer the last user message from the box's passages; `message.whis` holds the whole Answer."""
    service.release_for(asked.model)
    schema = _schema(asked.response_format)
    text = _last_user(asked.messages)
    chat_id, created = f"chatcmpl-{call.request_id}", int(time.time())
    head = {
        "id": chat_id,
        "created": created,
        "model": asked.model,
        "system_fingerprint": service.fingerprint,
    }
    if asked.stream:
        with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
        return sse.stream(_chat_events(service, asked.model, text, schema, call, head, with_usage))
    result = await _answer(service, asked.model, text, schema, call)
    message = {
        "role": "assistant",
        "content": _content(result, schema),
        "refusal": None,
        "whis": result.model_dump(mode="json"),
    }
    return JSONResponse(
        {
            **head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
            "usage": _usage(result.timings),
        }
    )


async def _chat_events(
    service: Service, model: str, text: str, schema: str, call: Call, head: dict[str, Any], with_usage: bool
) -> AsyncIterator[str]:
    """Chunks of checked text: a delta cannot be taken back, so nothing unchecked is sent as one."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        body = {**head, "object": "chat.completion.chunk", "choices": [choice]}
        return f"data: {sse.dumps(body)}\n\n"

    yield chunk({"role": "assistant", "content": ""})
    draft = sse.Draft()
    try:
        own = call.watched(None, draft.cancelled)
        async for piece in draft.around(_answer(service, model, text, schema, own)):
            if isinstance(piece, str):
                yield ": still working\n\n"
                continue
            for part in _pieces(piece, schema):
                yield chunk({"content": part})
            yield chunk({"whis": piece.model_dump(mode="json")}, "stop")
            if with_usage:
                body = {
                    **head,
                    "object": "chat.completion.chunk",
                    "choices": [],
                    "usage": _usage(piece.timings),
                }
                yield f"data: {sse.dumps(body)}\n\n"
    except WhisError as error:
        service.metrics.note_refusal(as_envelope(error).error.code)
        yield f"data: {as_envelope(error).model_dump_json()}\n\n"
    yield DONE


async def _answer(service: Service, model: str, text: str, schema: str, call: Call) -> Answer | Triage:
    if schema == TRIAGE_SCHEMA:
        require(call.caller, "triage")
        try:
            event = parse_event(text.encode("utf-8", "surrogatepass"), "the last user message")
        except InputError as error:
            raise HttpError(400, "invalid_json", str(error), "messages") from None
        return await service.triage(event, model, Filter(clearance=call.caller.clearance), call)
    return await service.ask(AskRequest(question=text, model=model), call)


def _schema(wanted: ResponseFormat | None) -> str:
    """The named schema, or "" for text.

    Raises: HttpError 400.
    """
    if wanted is None or wanted.type == "text":
        return ""
    name = wanted.json_schema.name if wanted.json_schema else ""
    if wanted.type == "json_schema" and name in (ANSWER_SCHEMA, TRIAGE_SCHEMA):
        return name
    message = f"response_format: only json_schema named {ANSWER_SCHEMA} or {TRIAGE_SCHEMA} is answered"
    raise HttpError(400, "unsupported_response_format", message, "response_format")


def _last_user(messages: list[ChatMessage]) -> str:
    for message in reversed(messages):
        if message.role == "user" and message.text().strip():
            return message.text()
    raise HttpError(400, "no_question", "messages: there is no user message with text", "messages")


def _content(result: Answer | Triage, schema: str) -> str:
    if schema:
        return result.model_dump_json()
    return result.answer if isinstance(result, Answer) else result.summary


def _pieces(result: Answer | Triage, schema: str) -> list[str]:
    """The content, sentence by sentence."""
    if schema or not isinstance(result, Answer) or len(result.claims) < 2:
        return [_content(result, schema)]
    text, parts, start = result.answer, [], 0
    for claim in result.claims[1:]:
        at = text.find(claim.text, start + 1)
        if at > start:
            parts.append(text[start:at])
            start = at
    return [*parts, text[start:]]


def _usage(timings: Timings) -> dict[str, Any]:
    return {
        "prompt_tokens": timings.prompt_tokens,
        "completion_tokens": timings.completion_tokens,
        "total_tokens": timings.prompt_tokens + timings.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": timings.cached_tokens},
    }


@router.post("/embeddings", response_class=Response, responses=responses(404))
async def embeddings(asked: EmbeddingsRequest, call: AskCall, service: TheService) -> Response:
    """Vectors of the box's own embedder, of unit length."""
    if asked.model != EMBEDDER:
        raise HttpError(
            404, "model_not_found", f"model {asked.model[:80]!r} does not embed; use {EMBEDDER}", "model"
        )
    texts = [asked.input] if isinstance(asked.input, str) else list(asked.input)
    embedder = service.box.embedder
    limit = service.box.box.limits.max_question_chars
    for text in texts:
        if len(text) > limit:
            raise HttpError(
                400, "text_too_long", f"input: a text has {len(text)} characters, the limit is {limit}"
            )
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    vectors = await asyncio.to_thread(embedder.embed, clean)
    n_tokens = sum(embedder.count_tokens(text) for text in clean)
    as_base64 = asked.encoding_format == "base64"
    data = [
        {
            "object": "embedding",
            "index": n,
            "embedding": base64.b64encode(row.astype(np.float32).tobytes()).decode()
            if as_base64
            else row.tolist(),
        }
        for n, row in enumerate(vectors)
    ]
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return JSONResponse({"object": "list", "data": data, "model": EMBEDDER, "usage": usage})


@router.post("/responses", response_class=Response, responses=responses(404))
async def respond(asked: ResponsesRequest, call: AskCall, service: TheService) -> Response:
    """The same answer in the shape of the Responses API; nothing is stored."""
    if asked.previous_response_id:
        message = "previous_response_id: nothing is stored here; send the whole question"
        raise HttpError(400, "stateless", message, "previous_response_id")
    service.release_for(asked.model)
    text = asked.input if isinstance(asked.input, str) else _last_user(asked.input)
    if asked.stream:
        return sse.stream(_response_events(service, asked.model, text, call))
    return JSONResponse(_response(await _answer(service, asked.model, text, "", call), asked.model, call))


async def _response_events(service: Service, model: str, text: str, call: Call) -> AsyncIterator[str]:
    draft = sse.Draft()
    number = 0

    def event(kind: str, fields: dict[str, Any]) -> str:
        nonlocal number
        number += 1
        return sse.event(kind, sse.dumps({"type": kind, "sequence_number": number - 1, **fields}))

    try:
        async for piece in draft.around(
            _answer(service, model, text, "", call.watched(None, draft.cancelled))
        ):
            if isinstance(piece, str):
                yield ": still working\n\n"
                continue
            body = _response(piece, model, call)
            place = {"item_id": body["output"][0]["id"], "output_index": 0, "content_index": 0}
            yield event("response.created", {"response": {**body, "status": "in_progress", "output": []}})
            for part in _pieces(piece, ""):
                yield event("response.output_text.delta", {**place, "delta": part, "logprobs": []})
            yield event("response.completed", {"response": body})
    except WhisError as error:
        service.metrics.note_refusal(as_envelope(error).error.code)
        inner = as_envelope(error).error
        yield event("error", {"code": inner.code, "message": inner.message, "param": inner.param})


def _response(result: Answer | Triage, model: str, call: Call) -> dict[str, Any]:
    timings = result.timings
    content = {"type": "output_text", "text": _content(result, ""), "annotations": [], "logprobs": []}
    message = {
        "type": "message", "id": f"msg_{result.id}", "status": "completed", "role": "assistant",
        "content": [content],
    }  # fmt: skip
    return {
        "id": f"resp_{result.id}", "object": "response", "created_at": int(time.time()),
        "status": "completed",
        "model": model, "output": [message], "error": None, "incomplete_details": None, "instructions": None,
        "metadata": {}, "parallel_tool_calls": False, "tool_choice": "none", "tools": [], "temperature": None,
        "top_p": None, "previous_response_id": None, "store": False,
        "usage": {
            "input_tokens": timings.prompt_tokens,
            "input_tokens_details": {"cached_tokens": timings.cached_tokens},
            "output_tokens": timings.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": timings.prompt_tokens + timings.completion_tokens,
        },
        "whis": result.model_dump(mode="json"),
    }  # fmt: skip
