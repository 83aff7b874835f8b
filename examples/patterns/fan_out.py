"""Fan-out: a step splits the work, and each part is a child run with steps of its own."""

import asyncio

from durable import step, workflow


@step
def shops(region: str) -> list[str]:
    return [f"{region}-{n}" for n in range(3)]


@step
def revenue(shop: str, month: str) -> int:
    return len(shop) * 100


@workflow
async def shop_report(shop: str, months: list[str]) -> int:
    return sum(await asyncio.gather(*(revenue(shop, month) for month in months)))


@workflow
async def region_report(region: str, months: list[str]) -> dict[str, int]:
    names = await shops(region)
    totals = await asyncio.gather(*(shop_report(shop, months) for shop in names))
    return dict(zip(names, totals, strict=True))
