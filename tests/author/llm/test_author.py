"""A language model as an author: programs out of replies, one second chance, money, lessons."""

from __future__ import annotations

import subprocess
import sys

import anyio
import pytest
from pydantic_ai.exceptions import ModelAPIError

from tests.author.llm.kit import QUICK, context, judge, judged, known, propose, reply, verdict_on
from warpsmith.author import Author, Explains, Explanation, Proposal, Refusal, Rests
from warpsmith.author.llm import FakeModel, Limits, LlmAuthor, ensemble
from warpsmith.author.llm.budget import tokens_in
from warpsmith.author.llm.prices import price
from warpsmith.errors import SettingsError

PRICED = "openai:gpt-5"


def author(*script: str | Exception, name: str = "fake:model", limits: Limits = QUICK) -> tuple[LlmAuthor, FakeModel]:
    model = FakeModel(script, name)
    return LlmAuthor(model, limits), model


def down() -> Exception:
    return ModelAPIError("model", "the provider is down")


def test_a_translation_passes_the_judge() -> None:
    writer, _ = author(reply("plain"))
    answer = propose(writer, context())
    assert verdict_on(answer).passed
    assert isinstance(answer, Proposal)
    assert answer.note.startswith("One block per row")
    assert answer.recipe is None
    assert answer.reply == reply("plain")


def test_what_is_stored_as_the_prompt_is_what_was_sent() -> None:
    writer, model = author(reply("unknown_key"), reply("plain"))
    answer = propose(writer, context())
    assert isinstance(answer, Proposal) and answer.prompt is not None
    assert answer.prompt.split() == model.prompts[-1].split()


def test_a_failed_program_is_repaired_by_what_the_judge_said() -> None:
    """The loop of the second stage in small: translate, judge, repair with the verdict, judge."""

    def write(prompt: str) -> str:
        if "# A program that failed" not in prompt:
            return reply("wrong_value")
        return reply("plain" if "2700 of 2700 elements are wrong" in prompt else "declined")

    writer = LlmAuthor(FakeModel(write), QUICK)
    first = propose(writer, context())
    assert isinstance(first, Proposal)
    failed = judge(first.program)
    assert not failed.verdict.passed
    assert verdict_on(propose(writer, context("repair", failed))).passed


def test_an_unusable_reply_is_answered_once_with_the_exact_complaint() -> None:
    writer, model = author(reply("unknown_tensor"), reply("plain"))
    answer = propose(writer, context())
    assert isinstance(answer, Proposal)
    assert len(model.prompts) == 2
    assert "launch 1 (row_softmax): args[1]: unknown name 'output'" in model.prompts[1]
    assert reply("unknown_tensor").strip() in model.prompts[1]
    assert answer.reply == reply("plain")


def test_two_unusable_replies_are_a_refusal_with_everything_in_it() -> None:
    writer, model = author(reply("declined"), reply("unknown_key"), name=PRICED)
    answer = propose(writer, context())
    assert isinstance(answer, Refusal)
    assert "unknown key 'blocks'" in answer.note and "\n" not in answer.note
    assert answer.reply == reply("unknown_key")
    assert answer.prompt is not None and reply("declined").strip() in answer.prompt
    assert len(model.prompts) == 2
    assert answer.cost_usd > 0.0


def test_repeating_the_parent_is_no_rewrite() -> None:
    writer, model = author(reply("plain"))
    answer = propose(writer, context("rewrite", judged("plain")))
    assert isinstance(answer, Refusal) and "same as one that was given" in answer.note
    assert len(model.prompts) == 2


def test_a_crossing_may_leave_out_the_plan_of_its_parents() -> None:
    writer, _ = author(reply("no_plan"))
    answer = propose(writer, context("cross", judged("race"), known()))
    assert isinstance(answer, Proposal)
    assert answer.program.plan == judged("race").candidate.program.plan


def test_library_calls_need_leave() -> None:
    writer, model = author(reply("library"))
    answer = propose(writer, context())
    assert isinstance(answer, Refusal) and "kernels must do all of the work" in answer.note
    assert "[[call]]\nop" not in model.prompts[0]


def test_the_price_is_stored_with_every_answer() -> None:
    writer, model = author(reply("plain"), name=PRICED)
    answer = propose(writer, context())
    assert isinstance(answer, Proposal)
    given, written = tokens_in(model.prompts[0]), tokens_in(reply("plain"))
    # gpt-5 took 1.25 USD for a million tokens in and 10 USD for a million out when its price was listed first.
    due = given * 1.25e-6 + written * 10e-6
    assert due / 2 < answer.cost_usd < due * 2


def test_a_second_chance_costs_twice() -> None:
    once, twice = author(reply("plain"), name=PRICED)[0], author(reply("unknown_key"), reply("plain"), name=PRICED)[0]
    cheap, dear = propose(once, context()), propose(twice, context())
    assert isinstance(cheap, Proposal) and isinstance(dear, Proposal)
    assert dear.cost_usd > 1.7 * cheap.cost_usd > 0.0


def test_no_report_of_usage_makes_a_negative_price() -> None:
    model = FakeModel([""], PRICED)
    assert price(model, 1000, -(10**9)) == price(model, 1000, 0) != 0.0
    assert price(model, -(10**9), 1000) == price(model, 0, 1000) != 0.0
    full, cached = price(model, 1000, 0), price(model, 1000, 0, cached_tokens=10**9)
    assert full is not None and cached is not None and 0.0 <= cached < full


def test_money_is_committed_before_it_is_spent() -> None:
    writer, _ = author(reply("plain"), name=PRICED)
    answer = propose(writer, context())
    assert isinstance(answer, Proposal)
    assert writer.expected_usd >= answer.cost_usd
    small = LlmAuthor(FakeModel([""], PRICED), Limits(max_prompt_tokens=10_000, max_reply_tokens=1_000))
    assert 0.0 < small.expected_usd < writer.expected_usd


def test_a_model_without_a_price_says_so() -> None:
    assert author("")[0].expected_usd == 0.0
    assert not author("")[0].priced
    assert author("", name=PRICED)[0].priced


def test_a_provider_that_is_down_is_a_refusal_and_then_left_alone() -> None:
    now = [100.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    model = FakeModel([down()])
    writer = LlmAuthor(model, QUICK, clock=lambda: now[0], sleep=sleep)
    first = propose(writer, context())
    assert isinstance(first, Refusal) and "down" in first.note and first.cost_usd == 0.0
    assert len(model.prompts) == QUICK.attempts
    assert isinstance(propose(writer, context()), Refusal)
    sent = len(model.prompts)
    assert propose(writer, context()) is None
    assert anyio.run(writer.explain, known(), judged("plain"), context()) is None
    assert len(model.prompts) == sent, "a provider that rests was asked"
    now[0] += QUICK.rest_s
    assert isinstance(propose(writer, context()), Refusal)
    now[0] += QUICK.rest_s
    assert propose(writer, context()) is None, "the second rest is not longer than the first"
    now[0] += QUICK.rest_s
    assert isinstance(propose(writer, context()), Refusal)


def test_a_provider_that_recovers_is_used_again() -> None:
    now = [100.0]
    script: list[str | Exception] = [down(), down(), down(), down(), reply("plain")]
    writer = LlmAuthor(FakeModel(script), QUICK, clock=lambda: now[0], sleep=anyio.sleep)
    assert isinstance(propose(writer, context()), Refusal)
    assert isinstance(propose(writer, context()), Refusal)
    now[0] += QUICK.rest_s
    assert isinstance(propose(writer, context()), Proposal)


def test_trouble_with_the_second_question_keeps_what_the_first_cost() -> None:
    writer, _ = author(reply("declined"), down(), down(), name=PRICED)
    answer = propose(writer, context())
    assert isinstance(answer, Refusal)
    assert answer.cost_usd > 0.0 and answer.reply == reply("declined")


def test_too_few_parents_are_no_question() -> None:
    writer, model = author(reply("plain"))
    assert propose(writer, context("cross", judged("plain"))) is None
    assert propose(writer, context("repair")) is None
    assert model.prompts == []


def test_a_task_that_is_too_large_costs_nothing() -> None:
    writer, model = author(reply("plain"), limits=Limits(max_prompt_tokens=1000))
    answer = propose(writer, context())
    assert isinstance(answer, Refusal) and "1000 tokens" in answer.note and answer.cost_usd == 0.0
    assert model.prompts == []


def test_a_lesson_is_one_short_line_with_a_price() -> None:
    writer, model = author(
        "<think>\nWhat changed?\n</think>\nShuffles in place of a tree\nsaved \x1b[1mfive\x1b[0m barriers.\n"
        + "And so on. " * 100,
        name=PRICED,
    )
    lesson = anyio.run(writer.explain, known(), judged("plain"), context())
    assert isinstance(lesson, Explanation)
    assert lesson.text.startswith("Shuffles in place of a tree saved")
    assert len(lesson.text) <= 500 and lesson.text.isprintable()
    assert lesson.cost_usd > 0.0
    assert lesson.prompt.split() == model.prompts[0].split()


def test_an_empty_lesson_is_a_refusal() -> None:
    writer, _ = author("  \n")
    assert isinstance(anyio.run(writer.explain, known(), judged("plain"), context()), Refusal)


def test_an_author_is_what_evolution_takes_for_one() -> None:
    writer: Author = author("")[0]
    assert writer.name == "llm:fake:model"
    assert writer.operators == {"translate": 0, "repair": 1, "rewrite": 1, "cross": 2}
    assert repr(writer) == "LlmAuthor('llm:fake:model')"
    assert isinstance(writer, Explains) and isinstance(writer, Rests)


def test_many_questions_at_once_are_all_answered() -> None:
    writer, model = author(reply("plain"))
    answers: list[Proposal | Refusal | None] = []

    async def ask(seed: int) -> None:
        answers.append(await writer.propose(context(seed=seed)))

    async def all_at_once() -> None:
        async with anyio.create_task_group() as group:
            for seed in range(12):
                group.start_soon(ask, seed)

    anyio.run(all_at_once)
    assert sum(isinstance(answer, Proposal) for answer in answers) == 12
    assert len(set(model.prompts)) == 7, "attempts in parallel are told the same"


def test_an_ensemble_has_an_author_for_each_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-1234567890")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-test-1234567890")
    names = ["openai:gpt-5", "anthropic:claude-sonnet-4-5", "openai@http://127.0.0.1:9/v1:qwen3:8b"]
    authors = ensemble(names, Limits(max_reply_tokens=500))
    assert [each.name for each in authors] == [f"llm:{name}" for name in names]
    assert [each.priced for each in authors] == [True, True, False]
    assert authors[0].expected_usd < 0.1
    with pytest.raises(SettingsError, match="'openai:gpt-5' is named twice"):
        ensemble(["openai:gpt-5", "openai:gpt-5"])
    assert ensemble([]) == []


def test_importing_the_authors_loads_no_provider() -> None:
    heavy = ("pydantic_ai", "openai", "anthropic", "google.genai", "genai_prices", "tenacity")
    code = f"import sys, warpsmith.author.llm; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_server_that_sells_known_models_has_their_price() -> None:
    sold = LlmAuthor("openai@https://openrouter.ai/api/v1:openai/gpt-5")
    assert sold.priced and sold.expected_usd > 0.0
    assert not LlmAuthor("openai@https://models.example.org/v1:openai/gpt-5").priced


@pytest.mark.parametrize("name", ["gpt-5", "gpt-oss-120b", "openai/gpt-5", "claude-sonnet-4-5"])
def test_a_model_on_an_own_server_is_free_whatever_it_is_called(name: str) -> None:
    own = LlmAuthor(f"openai@http://127.0.0.1:9/v1:{name}")
    assert own.expected_usd == 0.0 and not own.priced
