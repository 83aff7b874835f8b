"""Django by ASGI with the webhooks in the same process: ``uvicorn django_asgi:application``."""

from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from shop import engine, order

from durable import get_run
from durable.web import create_asgi_app

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)


async def create_order(request: HttpRequest, order_id: str) -> JsonResponse:
    run = await order.with_options(idempotency_key=f"order:{order_id}").astart(order_id)
    return JsonResponse({"run_id": run.id}, status=201)


async def show_run(request: HttpRequest, run_id: str) -> JsonResponse:
    run = get_run(run_id)
    return JsonResponse({"status": await run.astatus(), "webhooks": [hook["url"] for hook in await run.ahooks()]})


async def wait_for_result(request: HttpRequest, run_id: str) -> JsonResponse:
    return JsonResponse({"result": await get_run(run_id).aresult(timeout="25s")})


async def health(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


urlpatterns = [
    path("orders/<order_id>", create_order),
    path("runs/<run_id>", show_run),
    path("runs/<run_id>/result", wait_for_result),
    path("health", health),
]
django = get_asgi_application()
webhooks = create_asgi_app(engine)


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Requests to webhooks go to durable, all others to Django, which does not take the server's start and stop."""
    is_webhook = scope.get("path", "").startswith("/.well-known/workflow/")
    await (webhooks if is_webhook or scope["type"] == "lifespan" else django)(scope, receive, send)
