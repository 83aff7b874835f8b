"""Django by WSGI with the webhooks in the same process: ``gunicorn --worker-class gthread django_app:application``."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from shop import order
from webhooks import app as webhooks

from durable import get_run

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    ROOT_URLCONF=__name__,
)


def create_order(request: HttpRequest, order_id: str) -> JsonResponse:
    run_id = f"order-{order_id}"
    with transaction.atomic():
        # … your models …
        transaction.on_commit(partial(order.with_options(run_id=run_id).start, order_id))
    return JsonResponse({"run_id": run_id}, status=201)


def show_run(request: HttpRequest, run_id: str) -> JsonResponse:
    run = get_run(run_id)
    return JsonResponse({"status": run.status, "webhooks": [hook["url"] for hook in run.hooks()]})


def health(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("orders/<order_id>", create_order),
    path("runs/<run_id>", show_run),
    path("health", health),
]
django = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Requests to webhooks go to Flask, all others to Django."""
    is_webhook = environ["PATH_INFO"].startswith("/.well-known/workflow/")
    return (webhooks if is_webhook else django)(environ, start_response)
