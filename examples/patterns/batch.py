"""Batch with a limit: process many items, a few at a time; one that fails does not stop the others."""

import asyncio

from durable import step, workflow


@step(max_retries=1, retry_backoff=0.1)
def resize(image: str) -> str:
    if image.endswith(".txt"):
        raise ValueError(f"{image} is no image")
    return f"small-{image}"


@workflow
async def resize_all(images: list[str], at_once: int = 4) -> dict[str, list[str]]:
    limit = asyncio.Semaphore(at_once)

    async def one(image: str) -> str:
        async with limit:
            return await resize(image)

    results = await asyncio.gather(*map(one, images), return_exceptions=True)
    failed = [image for image, result in zip(images, results, strict=True) if isinstance(result, Exception)]
    return {"done": [result for result in results if isinstance(result, str)], "failed": failed}
