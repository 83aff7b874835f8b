"""Who may use the dashboard; that no other site acts through it; that what strangers sent does not become code."""

from __future__ import annotations

import re

import flask
import pytest
from driving import settle

from durable import create_hook, create_webhook, set_attributes, step, workflow
from durable.dashboard import ACTIONS, ROUTES, create_dashboard
from durable.web import create_blueprint

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


@step(name="attacked.step", max_retries=0)
def attacked_step(text: str) -> str:
    raise RuntimeError(text)


@workflow(name="attacked.<b>workflow</b>")
async def attacked(text: str) -> str:
    set_attributes(**{"name<b>": ATTACK})
    create_hook(token=ATTACK, metadata=text)
    webhook = create_webhook()
    async for request in webhook:
        await attacked_step(request.text())
    return text


@workflow(name="attacked.plain")
async def plain() -> None:
    await create_hook(token="plain")


def bare(engine, **options):
    made = flask.Flask("bare")
    made.register_blueprint(create_dashboard(engine, **options), url_prefix="/durable")
    return made.test_client()


def test_without_authorize_every_page_is_refused_and_says_what_to_do(engine):
    """A dashboard without ``authorize`` serves no page, and its answer names the argument that is missing."""
    client = bare(engine)

    for rule, _, method, _ in ROUTES:
        path = re.sub(r"<[^>]*>", "x", rule)
        answer = client.open(f"/durable{path}", method=method)
        if rule != "/" and method == "GET" and "rest" not in rule:
            assert answer.status_code == 403, path
            assert "authorize=" in answer.text
        assert answer.status_code in (302, 403, 404)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 200),
        ({"base_url": "http://127.0.0.1:8000"}, 200),
        ({"base_url": "http://evil.example"}, 403),
        ({"environ_base": {"REMOTE_ADDR": "10.0.0.7"}}, 403),
        ({"headers": {"X-Forwarded-For": "203.0.113.9"}}, 403),
    ],
)
def test_durable_dev_serves_only_this_computer(engine, monkeypatch, options, status):
    """In ``durable dev`` the dashboard needs no ``authorize``, and answers neither other hosts, names nor tunnels."""
    monkeypatch.setenv("DURABLE_DEV", "1")

    assert bare(engine).get("/durable/runs", **options).status_code == status


@pytest.mark.parametrize("answer", [False, None, "", 1, object(), [True]])
def test_only_true_or_a_name_allows_an_action(engine, answer):
    """A truthy answer of ``authorize`` that is neither True nor a str refuses the action: a coroutine is truthy."""
    client = bare(engine, authorize=lambda action, run_id: answer)

    refused = client.get("/durable/runs")

    assert refused.status_code == 403
    assert "You may not do this" in refused.text


def test_authorize_may_abort_and_redirect(engine):
    """``flask.abort`` in ``authorize`` decides the answer, so that an application can redirect to its log-in."""
    client = bare(engine, authorize=lambda action, run_id: flask.abort(flask.redirect("/login")))

    assert client.get("/durable/runs").location == "/login"


def test_every_action_of_the_forms_is_documented(engine, browser, permissions):
    """``authorize`` is asked only about actions in ``ACTIONS``."""
    run = engine.start(plain)
    settle(engine, run)
    for path in ("/runs", "/runs?status=running", f"/run/{run.id}", "/workflows", "/webhooks", "/start"):
        browser.get(path)

    assert {action for action, _ in permissions.asked} <= set(ACTIONS)


def test_every_answer_has_a_strict_policy_and_no_inline_code(engine, browser):
    """No page has a script, a style or a handler in it, and the policy forbids them."""
    run = engine.start(plain)
    settle(engine, run)
    for path in ("/runs", f"/run/{run.id}", "/workflows", "/workers", "/webhooks", "/start", "/nothing"):
        answer = browser.client.get(f"/durable{path}")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        assert not re.search(
            r'<style|\sstyle=|\son[a-z]+=|<script(?! src=)|(?:src|href|action)="(?:https?:)?//', answer.text
        )


def test_a_form_needs_the_token_of_its_browser(engine, browser):
    """A POST without the token, with a wrong one, or with a cookie that another site could not read, does nothing."""
    run = engine.start(plain)
    settle(engine, run)

    browser.client.get("/durable/runs")
    for token in ("", "x" * 43):
        answer = browser.client.post(f"/durable/run/{run.id}/cancel", data={"csrf_token": token})
        assert answer.status_code == 403
        assert "has expired" in answer.text
    browser.client.set_cookie("durable_csrf", "", path="/durable/")
    assert browser.client.post(f"/durable/run/{run.id}/cancel", data={"csrf_token": ""}).status_code == 403

    assert run.status == "running"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_form_of_another_site_is_refused(engine, browser, headers):
    """Even with the right token, a form that the browser says comes from another site does nothing."""
    run = engine.start(plain)
    settle(engine, run)
    browser.client.get("/durable/runs")
    token = browser.client.get_cookie("durable_csrf", path="/durable/").value

    answer = browser.client.post(f"/durable/run/{run.id}/cancel", data={"csrf_token": token}, headers=headers)

    assert answer.status_code == 403
    assert run.status == "running"


def test_the_cookie_is_strict(engine, browser):
    """No other site's request brings the cookie, and no script reads it."""
    cookie = browser.client.get("/durable/runs").headers["Set-Cookie"]

    assert "SameSite=Strict" in cookie
    assert "HttpOnly" in cookie
    assert "Path=/durable/" in cookie


def test_what_strangers_sent_is_text(engine, app, browser):
    """Markup in names, attributes, tokens, payloads, headers, bodies and errors stays text on every page."""
    app.register_blueprint(create_blueprint(engine))
    run = engine.start(attacked, ATTACK)
    settle(engine, run)
    url = next(hook["url"] for hook in run.hooks() if hook["url"])
    path = url.removeprefix("https://hooks.test")
    sent = browser.client.post(path, data=ATTACK, headers={"X-Attack": ATTACK, "Content-Type": "text/<b>"})
    assert sent.status_code == 202
    settle(engine, run)
    assert run.status == "failed"
    run.cancel(ATTACK)

    run_page = browser.get(f"/run/{run.id}")
    request_path = re.search(r'href="/durable(/run/[^"]*/request/[^"]*)"', run_page)[1]
    operations = set(re.findall(r'href="/durable(/run/[^"]*/operation/[^"]*)"', run_page))
    pages = [
        run_page,
        browser.get(request_path),
        *(browser.get(operation) for operation in operations),
        browser.get("/runs"),
        browser.get("/runs?error=%3Cscript%3E&name=%3Cscript%3E&attribute=a%3D%3Cscript%3E&id=%3Cscript%3E"),
        browser.get("/runs?status=%3Cscript%3E", 400),
        browser.get("/workflows"),
        browser.get("/webhooks"),
        browser.get("/%3Cscript%3E", 404),
        browser.get("/run/%3Cscript%3E", 404),
        browser.post(f"/run/{run.id}/token", 200, operation="r#1"),
    ]

    for page in pages:
        assert not re.search(r"<script>|<img|<b>", page)
    assert any("&lt;script&gt;alert(1)" in page for page in pages)


def test_tokens_are_masked_until_they_are_revealed(engine, browser, permissions):
    """No page shows a webhook's token but the one of ``reveal_token``, which ``authorize`` may refuse."""
    run = engine.start(attacked, "text")
    settle(engine, run)
    url = next(hook["url"] for hook in run.hooks() if hook["url"])
    token = url.rpartition("/")[2]
    hook_op = next(event.op_id for event in run.events() if getattr(event, "token", "") == token)

    assert token not in browser.get(f"/run/{run.id}")
    assert url in browser.post(f"/run/{run.id}/token", 200, operation=hook_op)
    permissions.denied = {"reveal_token"}
    assert token not in browser.post(f"/run/{run.id}/token", 403, operation=hook_op)
    assert "Reveal" not in browser.get(f"/run/{run.id}")
