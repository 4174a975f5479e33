"""The OpenAI-shaped requests and lists.

Invariant: fields that this server has no use for are ignored; no request needs one of ours.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from whis_box.schemas import Frozen
from whis_box.server.wire import Text

# ----------------------------------------------------------------- openai


class Loose(BaseModel):
    """OpenAI-shaped requests carry fields this server has no use for; they are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ContentPart(Loose):
    """A part of a message; only text is read."""

    type: Literal["text", "input_text", "output_text"]
    text: str = Field(max_length=1_000_000)


class ChatMessage(Loose):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None

    def text(self) -> str:
        """The words of the message."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or [])


class NamedSchema(Loose):
    """`whis_answer` or `whis_triage`; the schema itself is ours, not the caller's."""

    name: str = Field(max_length=64)


class ResponseFormat(Loose):
    """`text`, or `json_schema` with one of our names."""

    type: Literal["text", "json_schema", "json_object"] = "text"
    json_schema: NamedSchema | None = None


class StreamOptions(Loose):
    """OpenAI's."""

    include_usage: bool | None = None


class ChatRequest(Loose):
    """POST /v1/chat/completions."""

    model: str = Field(min_length=1, max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=200)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    n: int | None = Field(1, ge=1, le=1)
    user: str | None = Field(None, max_length=200)


class EmbeddingsRequest(Loose):
    """POST /v1/embeddings."""

    input: Text | Annotated[list[Text], Field(min_length=1, max_length=256)]
    model: str = Field("whis-embedder", max_length=200)
    encoding_format: Literal["float", "base64"] = "float"


class ResponsesRequest(Loose):
    """POST /v1/responses; nothing is stored, so `previous_response_id` is refused."""

    model: str = Field(min_length=1, max_length=200)
    input: Text | Annotated[list[ChatMessage], Field(min_length=1, max_length=200)]
    stream: bool | None = False
    previous_response_id: str | None = None


class ModelCard(Frozen):
    """One name that `model` may have."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "whis-box"


class ModelList(Frozen):
    """GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
