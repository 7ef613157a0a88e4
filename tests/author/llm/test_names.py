"""Models are found by their names, and keys never leave the environment."""

from __future__ import annotations

import pytest

from tests.author.llm.kit import QUICK, context, propose, reply
from tests.author.llm.server import fails, says, serving
from warpsmith.author import Proposal, Refusal
from warpsmith.author.llm import Limits, LlmAuthor
from warpsmith.author.llm.names import COMPATIBLE_KEY, PROVIDERS, model_of
from warpsmith.errors import SettingsError

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in {*PROVIDERS.values(), COMPATIBLE_KEY, "GEMINI_API_KEY", "OPENAI_BASE_URL"}:
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_a_missing_key_is_named(provider: str) -> None:
    with pytest.raises(SettingsError, match=f"'{provider}:vendor/model' needs a key: .* {PROVIDERS[provider]}"):
        model_of(f"{provider}:vendor/model")


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_every_provider_makes_a_model_where_there_is_a_key(provider: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROVIDERS[provider], KEY)
    assert model_of(f"{provider}:vendor/model").model_name == "vendor/model"


@pytest.mark.parametrize(
    ("name", "url", "model"),
    [
        ("openai@http://127.0.0.1:8000/v1:qwen3-coder", "http://127.0.0.1:8000/v1/", "qwen3-coder"),
        ("openai@http://127.0.0.1:11434/v1:llama3:8b", "http://127.0.0.1:11434/v1/", "llama3:8b"),
        ("openai@https://models.example.org/api/v1:Qwen/Qwen3", "https://models.example.org/api/v1/", "Qwen/Qwen3"),
        ("openai@http://[::1]:8000/v1:m", "http://[::1]:8000/v1/", "m"),
        ("openai@http://gpu-box:m", "http://gpu-box", "m"),
    ],
)
def test_a_url_and_a_model_are_told_apart(name: str, url: str, model: str) -> None:
    found = model_of(name)
    assert (found.base_url, found.model_name) == (url, model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpt-5", "names no language model: write provider:model"),
        ("openai:", "names no language model"),
        (":gpt-5", "names no language model"),
        ("", "names no language model"),
        ("opnai:gpt-5", "unknown provider 'opnai'; did you mean 'openai'"),
        ("test:gpt-5", "unknown provider 'test'"),
        ("openai@http://127.0.0.1:8000/v1", "names no model at a URL"),
        ("openai@http://127.0.0.1:8000", "names no model at a URL"),
        ("openai@127.0.0.1:8000/v1:m", "names no model at a URL"),
        ("openai@file:///etc/passwd:m", "names no model at a URL"),
    ],
)
def test_a_bad_name_is_one_clear_line(name: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        model_of(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("url", [f"http://user:{KEY}@host/v1", f"http://{KEY}@host/v1", f"http://host/v1?key={KEY}"])
def test_a_key_in_a_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        model_of(f"openai@{url}:m")
    assert KEY not in str(caught.value)


def test_another_server_is_never_sent_the_key_of_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving([says(reply("plain"))]) as server:
        assert isinstance(propose(LlmAuthor(server.model, QUICK), context()), Proposal)
        assert KEY not in server.keys[0]
        monkeypatch.setenv(COMPATIBLE_KEY, "another-key-0123456789")
        assert isinstance(propose(LlmAuthor(server.model, QUICK), context()), Proposal)
        assert server.keys[1] == "Bearer another-key-0123456789"


def test_a_key_is_in_nothing_that_is_stored_or_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that repeats the key, in its errors and in its replies, does not get it into the archive."""
    monkeypatch.setenv(COMPATIBLE_KEY, KEY)
    leaking = reply("plain").replace("// One block", f"// {KEY}").replace("One block per", f"{KEY} per")
    half = f"{KEY}\n{reply('unknown_key')}"
    with serving([fails(401, f"{KEY} is no good"), says(half), says(leaking)]) as server:
        author = LlmAuthor(server.model, Limits(attempts=1, rest_s=0.0, requests_per_minute=1e9))
        refusal, proposal = propose(author, context()), propose(author, context())
        assert all(KEY in key for key in server.keys)
    assert isinstance(refusal, Refusal) and "(hidden) is no good" in refusal.note
    assert isinstance(proposal, Proposal) and "(hidden) per" in proposal.note
    for stored in (refusal, proposal, author, author.name):
        assert KEY not in repr(stored)
        assert KEY[:12] not in repr(stored)


def test_short_values_and_other_variables_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "float")
    monkeypatch.setenv("SOME_FOLDER", "row_softmax")
    with serving([says(reply("plain"))]) as server:
        answer = propose(LlmAuthor(server.model, QUICK), context())
    assert isinstance(answer, Proposal) and "(hidden)" not in answer.program.source


def test_an_empty_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    with pytest.raises(SettingsError, match="set the environment variable OPENAI_API_KEY"):
        model_of("openai:gpt-5")
