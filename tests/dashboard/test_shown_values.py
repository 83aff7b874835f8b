"""Values on the pages: encrypted ones, those that the application redacts, and a database that is away."""

from __future__ import annotations

import re
import secrets

import flask
import pytest
from celery import Celery
from conftest import Browser, Permissions
from driving import settle
from servers import migrate

from durable import Durable, cipher, create_webhook, define_hook, emit, publish, resume_hook, step, workflow
from durable.dashboard import create_dashboard
from durable.web import create_blueprint

SECRET = "4111-1111-1111-1111"


@step(name="values.pay", max_retries=0)
def pay(card: str) -> str:
    raise RuntimeError(f"declined {card}")


@workflow(name="values.paying")
async def paying(card: str) -> str:
    webhook = create_webhook()
    publish("card", card)
    emit("cards", "the first")
    emit("cards", card)
    async for request in webhook:
        await pay(request.text())
    return card


bids = define_hook(str, name="values.bids", reply=dict[str, str])


@workflow(name="values.bidding")
async def bidding() -> None:
    hook = bids.create(token="values-bids")
    question = await hook
    question.reply({"sold for": f"{question.payload}0"})
    await hook
    await hook


@pytest.fixture
def make(tmp_path):
    """Makes engines on one database, which differ in their keys."""
    made = []

    def of(chosen):
        engine = Durable(
            Celery(f"values-{secrets.token_hex(4)}", broker="memory://"),
            database_url=f"sqlite:///{tmp_path}/durable.db",
            public_url="https://hooks.test",
            cipher=chosen,
            continuation=0,
        )
        migrate(engine)
        made.append(engine)
        return engine

    yield of
    for engine in made:
        engine.close()


def browser_of(engine, permissions=None, **options):
    app = flask.Flask("values")
    app.register_blueprint(
        create_dashboard(engine, authorize=permissions or Permissions(), **options), url_prefix="/durable"
    )
    app.register_blueprint(create_blueprint(engine))
    return Browser(app)


def pages_of(browser, run):
    """All pages that show something of a run."""
    page = browser.get(f"/run/{run.id}")
    links = set(re.findall(r'href="/durable(/run/[^"]*/(?:operation|request)/[^"]*)"', page))
    return "\n".join([page, *map(browser.get, sorted(links)), browser.get("/runs"), browser.get("/webhooks")])


def failed_run(engine):
    """A run that has the secret in its arguments, a request, a step's arguments and its error."""
    run = engine.start(paying, SECRET)
    settle(engine, run)
    path = run.hooks()[0]["url"].removeprefix("https://hooks.test")
    assert browser_of(engine).client.post(path, data=SECRET).status_code == 202
    settle(engine, run)
    assert run.status == "failed"
    return run


def test_encrypted_values_need_the_key_and_reveal(make):
    """With the key and ``reveal`` the values are shown; without either, the pages say why they are not."""
    keys = {"k1": secrets.token_bytes(32)}
    able = make(cipher.aes_gcm(keys))
    run = failed_run(able)
    permissions = Permissions()

    assert SECRET in pages_of(browser_of(able, permissions), run)
    assert ("reveal", run.id) in permissions.asked

    permissions.denied = {"reveal"}
    hidden = pages_of(browser_of(able, permissions), run)
    assert SECRET not in hidden
    assert "you may not reveal it" in hidden
    assert "This request is encrypted" in hidden

    other = browser_of(make(cipher.aes_gcm({"k2": secrets.token_bytes(32)})))
    unreadable = pages_of(other, run)
    assert SECRET not in unreadable
    assert "k1" in unreadable
    none = pages_of(browser_of(make(None)), run)
    assert SECRET not in none
    assert "Errors are encrypted" in browser_of(able).get("/runs?error=declined", 400)


def test_the_streams_of_a_run_are_shown_with_their_latest_items(make):
    page = browser_of(engine := make(None)).get(f"/run/{failed_run(engine).id}")
    (section,) = re.findall(r'<section[^>]*aria-labelledby="streams">(.*?)</section>', page, re.DOTALL)
    assert "cards" in section
    assert "<td>2</td><td>closed</td>" in section
    assert SECRET in section
    assert "the first" not in section


def test_redact_decides_what_is_shown(make):
    """Every value passes the application's function, which gets what it is from; nothing else is shown."""
    engine = make(None)
    run = failed_run(engine)
    seen = set()

    def redact(value, where):
        seen.add(where)
        return "REDACTED"

    assert SECRET in pages_of(browser_of(engine), run)
    shown = pages_of(browser_of(engine, redact=redact), run)

    assert SECRET not in shown
    assert "REDACTED" in shown
    assert {"arguments", "error", "body", "value:card", "stream:cards"} <= seen
    assert any(where.startswith("header:") for where in seen)


def test_a_database_that_is_away_is_a_page(make, tmp_path):
    """A database without an answer gives 503 with a page that says so, for a page and for a form."""
    engine = Durable(
        Celery("away", broker="memory://"), database_url="postgresql://postgres@127.0.0.1:1/nothing", continuation=0
    )
    app = flask.Flask("away")
    app.register_blueprint(create_dashboard(engine, authorize=Permissions()), url_prefix="/durable")
    client = app.test_client()

    for path in ("/runs", "/run/x", "/workflows", "/workers", "/webhooks"):
        answer = client.get(f"/durable{path}")
        assert answer.status_code == 503, path
        assert answer.headers["Retry-After"] == "5"
        assert "does not answer" in answer.text
        assert "Traceback" not in answer.text
    engine.close()


def test_a_database_with_an_older_schema_is_a_page(make, monkeypatch):
    """Before ``durable migrate`` the pages say what to run."""
    engine = make(None)
    monkeypatch.setattr(engine, "is_embedded", lambda: False)
    monkeypatch.setattr(engine, "_schema_checked", False)
    with engine.store.begin() as tx:
        tx.exec_driver_sql("UPDATE durable_version SET version_num = '0010'")

    app = flask.Flask("old")
    app.register_blueprint(create_dashboard(engine, authorize=Permissions()), url_prefix="/durable")

    assert "durable migrate" in Browser(app).get("/runs", 503)


def test_an_error_in_the_dashboard_is_logged_and_not_shown(make, caplog):
    """A failure of ``redact`` is a page with 500; the log has its traceback, and the page has not."""
    engine = make(None)
    run = failed_run(engine)

    def redact(value, where):
        raise KeyError("boom-42")

    page = browser_of(engine, redact=redact).get(f"/run/{run.id}", 500)

    assert "boom-42" not in page
    assert "boom-42" in caplog.text


# Questions


def bidden_run(engine):
    """A run that has replied to one question, not to another, and has a third in its inbox."""
    run = engine.start(bidding)
    settle(engine, run)
    for number, payload in enumerate((SECRET, "second", "third")):
        with pytest.raises(TimeoutError):
            resume_hook("values-bids", payload, reply=True, timeout=0)
        if number < 2:
            settle(engine, run)
    return run


def questions_of(browser, run):
    """The pages of the run's questions, newest first."""
    links = re.findall(rf'href="/durable(/run/{run.id}/request/[^"]*)"', browser.get(f"/run/{run.id}"))
    return [browser.get(link) for link in dict.fromkeys(links)]


def test_a_reply_is_shown_beside_its_payload(make):
    """On the page of a question and on that of its hook; lists tell questions from webhook requests."""
    engine = make(None)
    run = bidden_run(engine)
    browser = browser_of(engine)
    pages = questions_of(browser, run)
    assert len(pages) == 3
    third, second, first = sorted(pages, key=lambda page: (SECRET in page, "second" in page))
    assert "&#34;sold for&#34;: &#34;4111-1111-1111-11110&#34;" in first
    assert "There is no reply yet" in second
    assert "do not have it (yet)" in third
    hook = re.search(r'href="/durable(/run/[^"]*/operation/[^"]*)"', browser.get(f"/run/{run.id}"))[1]
    of_hook = browser.get(hook)
    assert (of_hook.count("<h3>Reply</h3>"), "sold for" in of_hook) == (2, True)
    for page in ("/webhooks", f"/run/{run.id}"):
        assert browser.get(page).count(">question</a>") == 3

    run.cancel()
    settle(engine, run)
    assert sum("the run is over" in page for page in questions_of(browser, run)) == 2


def test_replies_are_hidden_as_results_are(make):
    """By the application's redact, and from callers who may not reveal what is encrypted."""
    engine = make(cipher.aes_gcm({"k1": secrets.token_bytes(32)}))
    run = bidden_run(engine)
    permissions, seen = Permissions(), set()
    assert SECRET in pages_of(browser_of(engine, permissions), run)

    def redact(value, where):
        seen.add(where)
        return "REDACTED"

    assert SECRET not in pages_of(browser_of(engine, permissions, redact=redact), run)
    assert {"payload", "reply"} <= seen
    permissions.denied = {"reveal"}
    hidden = pages_of(browser_of(engine, permissions), run)
    assert (SECRET in hidden, "you may not reveal it" in hidden) == (False, True)
