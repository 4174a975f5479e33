"""The unmodified `openai` client against the server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest

from tests.server_box import ALERT, QUESTION, FakeBox, Running, serving
from whis_box.schemas import Answer, Triage
from whis_box.server.access import KeyEntry, digest


def test_a_key_that_is_not_known_is_refused_where_there_are_keys(fake_box: FakeBox) -> None:
    key = KeyEntry(id="ann", sha256=digest("key-of-ann"), scopes=["ask"])
    with serving(fake_box, keys=[key]) as server:

        def client(api_key: str) -> openai.OpenAI:
            return openai.OpenAI(base_url=f"{server.url}/v1", api_key=api_key, max_retries=0)

        with client("nope") as unknown, pytest.raises(openai.AuthenticationError, match="not known"):
            unknown.models.list()
        with client("key-of-ann") as known:
            assert known.models.list().data


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


@pytest.fixture
def local(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def test_models_are_listed(local: openai.OpenAI) -> None:
    assert [one.id for one in local.models.list()] == ["whis", "base", "whis-embedder"]
    assert local.models.retrieve("whis").owned_by == "whis-box"
    with pytest.raises(openai.NotFoundError):
        local.models.retrieve("gpt-4")


def test_a_chat_answers_with_its_citations_beside(local: openai.OpenAI) -> None:
    done = local.chat.completions.create(model="whis", messages=messages(QUESTION))  # type: ignore[arg-type]
    message = done.choices[0].message
    answer = Answer.model_validate(message.model_extra["whis"])  # type: ignore[index]
    assert message.content == answer.answer and answer.citations
    assert done.usage is not None and done.usage.prompt_tokens_details is not None
    assert done.usage.prompt_tokens_details.cached_tokens == 40


def test_a_streamed_chat_says_the_same(local: openai.OpenAI) -> None:
    whole = local.chat.completions.create(model="whis", messages=messages(QUESTION))  # type: ignore[arg-type]
    chunks = list(
        local.chat.completions.create(
            model="whis",
            messages=messages(QUESTION),  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None and chunks[-2].choices[0].finish_reason == "stop"


def test_our_schemas_are_kept_and_others_refused(local: openai.OpenAI) -> None:
    def ask(name: str, text: str) -> str:
        form = {"type": "json_schema", "json_schema": {"name": name, "schema": {}}}
        done = local.chat.completions.create(
            model="whis", messages=messages(text), response_format=form  # type: ignore[arg-type, call-overload]
        )  # fmt: skip
        return str(done.choices[0].message.content)

    assert Answer.model_validate_json(ask("whis_answer", QUESTION)).status == "answered"
    assert Triage.model_validate_json(ask("whis_triage", json.dumps(ALERT))).alert_id == "alert-1"
    with pytest.raises(openai.BadRequestError, match="whis_answer"):
        ask("mine", QUESTION)


def test_embeddings_are_unit_vectors(local: openai.OpenAI) -> None:
    done = local.embeddings.create(model="whis-embedder", input=["audit log", "lsass"])
    assert [len(one.embedding) for one in done.data] == [64, 64]
    assert sum(x * x for x in done.data[0].embedding) == pytest.approx(1.0, abs=1e-3)
    floats = local.embeddings.create(model="whis-embedder", input="audit log", encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(done.data[0].embedding, abs=1e-6)


def test_responses_are_stateless(local: openai.OpenAI) -> None:
    done = local.responses.create(model="whis", input=QUESTION)
    assert done.output_text.startswith("Event 1102")
    with pytest.raises(openai.BadRequestError, match="nothing is stored"):
        local.responses.create(model="whis", input=QUESTION, previous_response_id="resp_1")
    kinds = [one.type for one in local.responses.create(model="whis", input=QUESTION, stream=True)]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"


def test_errors_reach_the_client_typed(local: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        local.chat.completions.create(model="gpt-4", messages=messages("x"))  # type: ignore[arg-type]
    assert caught.value.code == "model_not_found" and "whis" in caught.value.message
