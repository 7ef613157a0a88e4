"""A real language model behind a real server: what it writes is poor, and a search must take that with good grace.

`make model-test` installs the model, serves it on loopback, and runs these tests with its name in TEST_MODEL.
"""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest
import torch

import warpsmith
from tests.author.llm.kit import BOUND, GPU, TASK, judge
from warpsmith.archive import Archive
from warpsmith.author import Context, Proposal, Refusal
from warpsmith.author.builtin import BuiltinAuthor
from warpsmith.author.llm import Limits, LlmAuthor, ensemble
from warpsmith.author.llm.budget import tokens_in
from warpsmith.author.llm.client import Answer, Client, Trouble
from warpsmith.author.llm.names import model_of
from warpsmith.author.llm.prices import price
from warpsmith.author.llm.prompt import pose
from warpsmith.settings import load_settings

MODEL = os.environ.get("TEST_MODEL", "")
LIMITS = Limits(timeout_s=900.0, attempts=1, concurrent=1, max_prompt_tokens=5000, max_reply_tokens=120)
"""For a window of 8192 tokens. Nothing here depends on how fast the model is, so that the time is ample."""

pytestmark = [
    pytest.mark.skipif(not MODEL, reason="TEST_MODEL names no language model: make model-test"),
    pytest.mark.timeout(3600),
]


def ask(client: Client, prompt: str) -> Answer | Trouble:
    return anyio.run(client.ask, "Answer in a sentence.", prompt)


def client(limits: Limits = LIMITS) -> Client:
    return LlmAuthor(MODEL, limits)._client


def test_a_reply_ends_at_its_limit_and_says_so() -> None:
    answer = ask(client(Limits(timeout_s=900.0, attempts=1, max_reply_tokens=12)), "What is a warp in CUDA?")
    assert isinstance(answer, Answer), answer
    assert answer.cut and answer.text.strip()
    assert tokens_in(answer.text) < 60


def test_tokens_are_those_that_the_server_counted() -> None:
    """Were the same server one that charges, every token of its own count would be on the bill."""
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    url = str(model_of(MODEL).base_url)
    dear = OpenAIChatModel("gpt-4o", provider=OpenAIProvider(base_url=url, api_key="none"))
    limits = Limits(timeout_s=900.0, attempts=1, max_reply_tokens=12)
    bills = []
    for words in (10, 400):
        answer = ask(LlmAuthor(dear, limits)._client, "warp " * words)
        assert isinstance(answer, Answer), answer
        bills.append(answer.cost_usd)
    written, read = price(dear, 0, 12), price(dear, 390, 0)
    assert written is not None and read is not None
    # The second prompt has 390 words more, each of which is a token or two. Replies differ by twelve tokens at most,
    # and the few words that both prompts begin with are cheaper the second time, as they are still in the cache.
    assert read - 2 * written <= bills[1] - bills[0] <= 2.1 * read + written


def test_the_size_of_a_prompt_is_estimated_about_right() -> None:
    """Prompts are held to a budget by an estimate. A window must not be far smaller than the budget promises."""
    from pydantic_ai.direct import model_request_sync
    from pydantic_ai.messages import ModelRequest
    from pydantic_ai.settings import ModelSettings

    prompt = pose(Context(TASK, GPU, "translate", (), 0, bound=BOUND), LIMITS.max_prompt_tokens)
    assert prompt is not None
    response = model_request_sync(
        model_of(MODEL),
        [ModelRequest.user_text_prompt(prompt.text, instructions=prompt.instructions)],
        model_settings=ModelSettings(max_tokens=1, timeout=900.0),
    )
    assert 0.7 < prompt.tokens / response.usage.input_tokens < 1.4


def test_a_prompt_that_does_not_fit_into_the_window_is_said_in_a_line() -> None:
    trouble = ask(client(), "warp " * 100_000)
    assert isinstance(trouble, Trouble)
    assert "context" in trouble.reason and "\n" not in trouble.reason


def test_what_a_poor_model_writes_is_refused_in_a_line_or_judged() -> None:
    author = LlmAuthor(MODEL, LIMITS)
    answer = anyio.run(author.propose, Context(TASK, GPU, "translate", (), 0, bound=BOUND))
    assert answer is not None and answer.prompt and answer.reply
    print(f"\nIt wrote: {answer.reply!r}\nand this was said of it: {answer.note!r}")
    if isinstance(answer, Proposal):
        judge(answer.program)
        return
    assert isinstance(answer, Refusal)
    assert answer.note and "\n" not in answer.note


def test_a_search_with_it_finishes_with_the_built_in_authors_program(tmp_path: Path) -> None:
    settings = load_settings(
        archive=str(tmp_path / "archive.db"),
        device="H100",
        simulate=True,
        workers=1,
        # Candidates end it, and not the time: the budget only says how large a search it is.
        budget=3000.0,
        max_candidates=6,
    )
    (model,) = ensemble([MODEL], LIMITS)
    result = warpsmith.optimize(
        torch.nn.Softmax(dim=-1), torch.randn(64, 128), settings=settings, authors=[BuiltinAuthor(), model]
    )
    assert result.best.verdict.passed
    assert result.best.candidate.lineage.author == "builtin"
    with Archive.open(settings.archive) as archive:
        refused = [event.data for event in archive.events(result.run) if event.kind == "refused"]
    written = [one.candidate.lineage for one in result.history if one.candidate.lineage.author == model.name]
    assert len(refused) + len(written) >= 1
    for data in refused:
        assert data["author"] == model.name and data["operator"] in model.operators
        assert data["note"] and data["prompt"] and data["reply"] and data["cost_usd"] == 0.0
    for lineage in written:
        assert lineage.prompt and lineage.reply and lineage.cost_usd == 0.0
    print(f"\n{len(refused)} replies refused, {len(written)} judged; {result.stop_reason} after {result.seconds:.0f} s")
