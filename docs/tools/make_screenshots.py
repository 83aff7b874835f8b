"""
Make the pictures of the dashboard in docs/images: ``make screenshots``.

It starts ``durable dev`` with a copy of docs/tools/shop in a temporary folder, makes runs of each kind, and
photographs the pages in Debian's chromium, light and dark.
"""

from __future__ import annotations

import base64
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Browser, Page, sync_playwright

DOCS = Path(__file__).resolve().parents[1]
SHOP = DOCS / "tools" / "shop" / "shop.py"
IMAGES = DOCS / "images"
CHROMIUM = "/usr/bin/chromium"

#: Size of the pages, in pixels.
WIDTH, HEIGHT = 1400, 860
#: Of WebP: at 80, text is as sharp as in the browser.
QUALITY = 80
#: What a picture may have, in bytes.
MOST = 150_000
DEADLINE_SECS = 60.0

CUSTOMERS = ("ada", "grace", "edsger", "barbara", "donald", "radia")


def until(what: str, condition: Callable[[], Any]) -> Any:
    """What *condition* returns once it is true."""
    deadline = time.monotonic() + DEADLINE_SECS
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"Not so within {DEADLINE_SECS:g} s: {what}.")
        time.sleep(0.05)
    return found


@contextmanager
def dev(folder: Path, release: str) -> Iterator[str]:
    """``durable dev`` with the shop; yields the dashboard's URL."""
    log = folder / f"dev-{release}.log"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DURABLE_", "CELERY_"))}
    environment |= {"SHOP_RELEASE": release, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(Path(sys.executable).with_name("durable")), "--app", "shop", "dev", "--concurrency", "4"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        until("durable dev is ready", lambda: "ready;" in log.read_text() or process.poll() is not None)
        found = re.search(r"dashboard (http\S+)/", log.read_text())
        if found is None:
            raise SystemExit(f"durable dev serves no dashboard:\n{log.read_text()}")
        yield found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def connect(folder: Path) -> Any:
    """The shop's module, with its engine on the database and the broker in *folder*."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    import shop

    return shop


def start_history(shop: Any) -> Any:
    """Start runs that end, and invoices that wait for the next release; return the first invoice."""
    runs = [shop.catalogue.start(supplier) for supplier in ("acme", "globex", "initech", "umbrella") for _ in range(6)]
    runs += [shop.delivery.start(f"order-10{number:02}") for number in range(8)]
    runs += [shop.refund.start("order-1007", "radia", 18.0), shop.report.start("2026-01-30")]
    invoices = [shop.invoice.start(f"order-104{number}", CUSTOMERS[number]) for number in range(3)]
    until("the history has ended", lambda: all(run.status in ("completed", "failed") for run in runs))
    until("the invoices wait", lambda: all(invoice.hooks() for invoice in invoices))
    return invoices[0]


def spread_history(folder: Path) -> None:
    """Have the runs that have ended begin at different times of the last hour, as those of a shop do."""
    with closing(sqlite3.connect(folder / ".durable" / "durable.db", timeout=30)) as db, db:
        rows = db.execute("SELECT id FROM durable_runs WHERE completed_at IS NOT NULL ORDER BY id").fetchall()
        times = sorted((random.random() ** 0.8 * 3_300_000_000 for _ in rows), reverse=True)
        for (run_id,), earlier in zip(rows, map(int, times), strict=True):
            db.execute(
                "UPDATE durable_runs SET created_at = created_at - :by, started_at = started_at - :by,"
                " completed_at = completed_at - :by WHERE id = :id",
                {"by": earlier, "id": run_id},
            )


def start_scene(shop: Any, invoice: Any) -> dict[str, Any]:
    """Runs of each kind, by the pictures that show them."""
    from durable import resume_hook

    orders = [shop.order.start(f"order-{1050 + n}", CUSTOMERS[n], 20.0 + n) for n in range(5)]
    urls = [until("the webhook is open", lambda order=order: _url_of(order)) for order in orders]
    for kind in ("payment.pending", "payment.succeeded"):
        for url in urls[:3] if kind == "payment.succeeded" else urls[:4]:
            requests.post(url, json={"type": kind, "provider": "example"}, timeout=30).raise_for_status()
    shop.review_reminder.start("order-1050", "ada")
    refund = shop.refund.start("order-1043", "grace", 42.5)
    until("the refund has failed", lambda: refund.status == "failed")
    until("the orders are delivered", lambda: all(order.status == "completed" for order in orders[:3]))
    resume_hook("shipped:order-1040", {"carrier": "DHL"})
    until("the invoice is blocked", lambda: invoice.status == "blocked")
    return {"order": orders[0], "blocked": invoice}


def _url_of(run: Any) -> str | None:
    return next((hook["url"] for hook in run.hooks() if hook["is_webhook"]), None)


def photograph(page: Page, url: str, name: str, theme: str) -> None:
    """Write a picture of the page's top, down to its end or the height of the window."""
    page.goto(url)
    height = min(HEIGHT, page.evaluate("document.querySelector('main').getBoundingClientRect().bottom") - 24)
    path = IMAGES / f"{name}-{theme}.webp"
    # Playwright itself knows PNG and JPEG only: PNG is twice as large, and JPEG blurs text.
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
    session = page.context.new_cdp_session(page)
    shot = session.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY, "clip": clip})
    path.write_bytes(base64.b64decode(shot["data"]))
    size = path.stat().st_size
    print(f"{path.relative_to(DOCS.parent)}: {size:,} bytes")
    if size > MOST:
        raise SystemExit(f"{path.name} has more than {MOST:,} bytes.")


def photograph_all(browser: Browser, base: str, scene: dict[str, Any]) -> None:
    """Every picture, light and dark."""
    pages = {
        "runs": "/runs",
        "run": f"/run/{scene['order'].id}",
        "blocked": f"/run/{scene['blocked'].id}",
        "workflows": "/workflows?window=hour",
        "workers": "/workers",
        "webhooks": "/webhooks",
    }
    for theme in ("light", "dark"):
        context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=theme)
        page = context.new_page()
        for name, path in pages.items():
            photograph(page, base + path, name, theme)
        context.close()


def main() -> None:
    """Make the runs with one release of the shop, go on with the next one, and take the pictures."""
    random.seed(7)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="durable-shop-") as name:
        folder = Path(name)
        shutil.copy(SHOP, folder)
        # The embedded broker's socket is in the temporary folder; this process sends messages to it too.
        (folder / "tmp").mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
        with dev(folder, "1"):
            shop = connect(folder)
            invoice = start_history(shop)
        spread_history(folder)
        with dev(folder, "2") as base, sync_playwright() as playwright:
            scene = start_scene(shop, invoice)
            shop.report.start("2026-01-31")
            sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=sandbox)
            photograph_all(browser, base, scene)
            browser.close()
        os.chdir(DOCS)


if __name__ == "__main__":
    main()
