"""
A vendor that verifies documents: it accepts a document now, and calls back later.

::

    python examples/vendor.py [PORT]      # prints its URL; give it to the worker as VENDOR_URL

For a document whose id begins with "silent", the vendor calls back only after POST /documents/<id>/callback.
"""

from __future__ import annotations

import json
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

import flask
from werkzeug.serving import make_server

DELAY_SECS = 1.0

app = flask.Flask(__name__)
#: For each document, where to call back, and the answer to that call.
documents: dict[str, dict[str, Any]] = {}


@app.post("/documents")
def submit() -> tuple[dict[str, Any], int]:
    """Accept a document, and call back after a second."""
    body = flask.request.get_json()
    document_id = body["document_id"]
    documents[document_id] = {"callback_url": body["callback_url"], "answer": None}
    if not document_id.startswith("silent"):
        threading.Timer(DELAY_SECS, call_back, [document_id]).start()
    return {"accepted": document_id}, 202


@app.get("/documents/<document_id>")
def show(document_id: str) -> dict[str, Any]:
    """The callback URL of a document, and the answer to the callback."""
    return documents[document_id]


@app.post("/documents/<document_id>/callback")
def call_back_now(document_id: str) -> dict[str, Any]:
    """Call back now."""
    return call_back(document_id)


def call_back(document_id: str) -> dict[str, Any]:
    """POST the verdict to the document's callback URL, and record the answer."""
    document = documents[document_id]
    body = json.dumps({"document_id": document_id, "verdict": "genuine"}).encode()
    request = urllib.request.Request(document["callback_url"], body, {"Content-Type": "application/json"})
    document["answer"] = _answer_to(request)
    return document


def _answer_to(request: urllib.request.Request) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return {"status": response.status, "body": json.load(response)}
    except urllib.error.HTTPError as error:
        with error:
            return {"status": error.code, "body": json.load(error)}


def main() -> None:
    """Serve until killed."""
    server = make_server("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0, app, threaded=True)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
