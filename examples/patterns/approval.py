"""Human approval: ask, remind each day, and give up after three days."""

from dataclasses import dataclass

from durable import define_hook, race, sleep, step, workflow


@dataclass
class Decision:
    approved: bool
    by: str


decisions = define_hook(Decision)


@step
def ask(manager: str, report: str, token: str) -> None:
    """Send a link to the page that calls ``decisions.resume(token, Decision(...))``."""


@workflow
async def approve_expense(report: str, manager: str) -> str:
    with decisions.create(token=f"expense:{report}", metadata={"manager": manager}) as hook:
        for _ in range(3):
            await ask(manager, report, hook.token)
            decision = await race(hook, sleep("1d"))
            if decision is not None:
                return f"{'approved' if decision.approved else 'refused'} by {decision.by}"
    return "nobody decided"
