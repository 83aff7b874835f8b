"""
A page with a batch of 200 images, whose progress bar moves in the browser.

Start it in this folder, and open http://localhost:8000:

    DURABLE_SIGNING_KEY=$(openssl rand -hex 32) durable --app thumbnails dev
"""

from __future__ import annotations

import time
from pathlib import Path

import flask
from celery import Celery

from durable import Durable, Stream, emit, map, step, workflow
from durable.web import create_blueprint

IMAGES = 200

celery = Celery("thumbnails")
engine = Durable(celery)

progress = Stream("progress", str, keep=1_000)


@step
def resize(image: str) -> str:
    """Here the image would be read, made smaller, and stored."""
    time.sleep(0.02)
    emit(progress, image)
    return f"small-{image}"


@workflow
async def resize_all(images: list[str]) -> int:
    return len(await map(resize, images, limit=10))


def create_app() -> flask.Flask:
    app = flask.Flask("thumbnails")
    app.register_blueprint(create_blueprint(engine))

    @app.get("/")
    def page() -> str:
        return Path(__file__).with_name("page.html").read_text()

    @app.post("/batches")
    def create_batch() -> dict[str, object]:
        run = resize_all.start([f"{number:03}.png" for number in range(IMAGES)])
        return {"run": run.id, "images": IMAGES, "token": run.read_token(streams=[progress], expires="1h")}

    return app
