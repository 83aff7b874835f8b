"""Scheduled reminder: sleep until a time that may be months away, unless it is done before."""

from datetime import datetime, timedelta

from durable import create_hook, race, sleep, step, workflow


@step
def send_mail(to: str, text: str) -> str:
    return f"to {to}: {text}"


@workflow
async def remind(customer: str, renew_by: datetime) -> str:
    renewed = create_hook(token=f"renewed:{customer}")  # resume_hook("renewed:…", True) when they pay
    for days in (30, 7, 1):
        if await race(renewed, sleep(renew_by - timedelta(days=days))):
            return "renewed"
        await send_mail(customer, f"{days} days left")
    return "lapsed" if not await race(renewed, sleep(renew_by)) else "renewed"
