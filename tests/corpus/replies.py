"""Questions: payloads to which the workflow and its steps reply, in one generation and in the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from corpus.cases import Case, During, is_over, waited
from durable import HookNotFound, Question, ReplyNotSent, Run, continue_as_new, create_hook, define_hook, step, workflow
from durable.current import current_engine
from durable.events import HookReceived
from durable.store import requests
from durable.testing import Environment


@dataclass
class Deposit:
    cents: int


deposits = define_hook(Deposit, name="corpus.deposits", reply=int)


@workflow(name="corpus.balance")
async def balance() -> int:
    """Replies itself, to each deposit."""
    total = 0
    async for question in deposits.create(token="corpus:balance"):
        total += question.payload.cents
        question.reply(total)
        if total >= 60:
            break
    return total


@step(name="corpus.quote", retry_backoff=0)
def quote(question: Question[Any, Any]) -> bool:
    return question.reply({"cents": len(question.payload) * 100})


@workflow(name="corpus.quotes")
async def quotes() -> int:
    """The step replies, unless an attempt of it that was lost has; what the workflow would say comes too late."""
    answered = 0
    async for question in create_hook(token="corpus:quotes"):
        await quote(question)
        question.reply("too late")
        answered += 1
        if answered == 2:
            break
    return answered


@workflow(name="corpus.handed_question")
async def handed_question(pending: Question[Any, Any] | None = None) -> str:
    """The next generation replies to what the first one has taken, and to what that has not."""
    hook = create_hook("corpus:handed")
    if pending is None:
        continue_as_new(await hook)
    pending.reply("late")
    question = await hook
    question.reply("later")
    return f"{pending.payload} {question.payload}"


@workflow(name="corpus.question_unanswered")
async def question_unanswered() -> str:
    """Takes one question without a reply, and leaves another: the end of the run answers both."""
    hook = create_hook("corpus:silent")
    question = await hook
    await create_hook("corpus:end")
    return f"{question.payload} is not answered"


def asks(token: str, *payloads: Any, then: tuple[str, Any] | None = None) -> During:
    """The outside world: asks each, unless that was done, and waits no longer than the environment has work."""

    def during(env: Environment, run: Run[Any]) -> None:
        env.run_until_idle()
        for number, payload in enumerate(payloads):
            while not is_over(waited(env, run)) and len(_questions(run)) <= number:
                try:
                    env.engine.resume_hook(token, payload, reply=True, timeout=0)
                except (TimeoutError, ReplyNotSent):
                    break
                except HookNotFound:
                    if not env.jump():
                        break
        while then is not None and not is_over(waited(env, run)):
            try:
                env.resume(*then)
            except HookNotFound:
                if not env.jump():
                    break

    return during


def _questions(run: Run[Any]) -> list[str]:
    """The ids of the questions in the log of the run's generations, in the order received."""
    received = [e for each in run.generations() for e in each.events() if isinstance(e, HookReceived)]
    return list(dict.fromkeys(event.request_id for event in received if event.request_id is not None))


def replies(run: Run[Any]) -> Any:
    """The result of the run, and the answer to each question."""
    with current_engine().store.read() as tx:
        answers = requests.answers(tx, _questions(run))
    return run.result(timeout=0), [(answers[each].status, answers[each].body) for each in _questions(run)]


CASES = [
    Case(
        balance,
        during=asks("corpus:balance", {"cents": 10}, {"cents": 20}, {"cents": 30}),
        outcome=replies,
    ),
    Case(quotes, during=asks("corpus:quotes", "tea", "coffee"), outcome=replies),
    Case(handed_question, during=asks("corpus:handed", "one", "two"), outcome=replies),
    Case(
        question_unanswered,
        during=asks("corpus:silent", "one", "two", then=("corpus:end", None)),
        outcome=replies,
    ),
]
