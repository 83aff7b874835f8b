"""Bounded map: a step for each of many items, a few at a time."""

import durable
from durable import step, workflow


@step
def resize(image: str) -> str:
    return f"small {image}"


@workflow
async def resize_all(images: list[str]) -> list[str]:
    return await durable.map(resize, images, limit=10)
