"""
Bytes that a fuzzer makes, led by which lines they reach, for what strangers' bytes reach first.

``python tests/fuzzing.py request|verifiers|codec [libFuzzer's options]`` goes on until it finds something, or for as
long as ``-runs=N`` or ``-max_total_time=SECS`` say.  A finding is an exception that is not documented: it is shown, the
input that raises it is kept in a file (``-artifact_prefix=folder/`` says where), and the exit code is not 0.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import atheris

with atheris.instrument_imports(include=["durable", "werkzeug"]):
    from durable import ConfigurationError, Request, SerializationError, codec
    from durable.errors import BadRequestBody
    from durable.verify import Delivery, Rejected, Unavailable, keys, presets, verdict
    from durable.web import limits, prefer, wsgi_request

from senders import SENDERS, Sender, sign_twilio
from werkzeug.datastructures import Headers

Fuzzed = atheris.FuzzedDataProvider

#: What one request may have.
_TOKENS = [
    b"application/json",
    b"application/x-www-form-urlencoded",
    b"text/plain; charset=utf-16",
    b"multipart/form-data; boundary=x",
    b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n1\r\n--x--',
    b"respond-async, wait=5",
    b"gzip",
    b"deflate",
    b"a=1; b=2",
    b'{"a": [1, null, "\\u00e9"]}',
    b"/path/%2F?a=1&a=%C3%A9#f",
]
#: Values whose text the codec's fuzzing begins with.
_VALUES: list[Any] = [
    None,
    [1, -1.5, math.inf, 2**70, "é", b"\0\xff", True],
    {"a": {"b": (1, {2}, frozenset({3}))}, 1: 2},
    ValueError("no"),
    Request(headers=Headers({"A": "b"}), data=b"{}"),
]


def fuzz_request(data: bytes) -> None:
    """A request is read in every way that it can be: what it raises is BadRequestBody."""
    fuzzed = Fuzzed(data)
    names = ["Content-Type", "Cookie", "Prefer", "Transfer-Encoding", "Content-Length", "Content-Encoding"]
    headers = [(name, _latin(fuzzed)) for name in names if fuzzed.ConsumeBool()]
    target = _latin(fuzzed)
    made = Request("POST", f"http://h{target}", Headers(headers), fuzzed.ConsumeBytes(fuzzed.remaining_bytes()))
    for read in (
        made.json,
        made.decoded_data,
        lambda: made.form,
        lambda: [each.read() for each in made.files.values()],
    ):
        with suppress(BadRequestBody):
            read()
    assert [type(each) for each in (made.text(), made.path, repr(made))] == [str] * 3
    assert made.args is not None
    assert made.cookies is not None
    assert Request.from_head(made.head_json(), made.data) == made
    prefer.parse(made.headers.get("Prefer"))
    limits.has_large_headers(headers)
    wsgi_request.parse_target(target)
    wsgi_request.is_framed({f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers})
    wsgi_request.exact_url({"RAW_URI": target, "PATH_INFO": target, "wsgi.url_scheme": "http", "HTTP_HOST": "h"})


def fuzz_verifiers(data: bytes) -> None:
    """No header and no body makes a verifier, a handshake or a key raise; a body that was not signed is refused."""
    fuzzed = Fuzzed(data)
    name = fuzzed.PickValueInList(sorted(SENDERS))
    sender = SENDERS[name]
    headers = dict(_signed(name))
    headers[fuzzed.PickValueInList(sorted(headers))] = _latin(fuzzed)
    body = fuzzed.ConsumeBytes(fuzzed.remaining_bytes())
    delivery = sender.deliver(headers=headers, sent=body)
    preset = presets.find(sender.verification.by)
    refused = verdict.refusal(preset, delivery)
    # Twilio signs the fields of a form, which can be written in more ways than one.
    assert refused is not None or body == sender.body or (name == "twilio" and _signs_alike(body))
    for ask in (preset.greeting, preset.handshake):
        _asked(ask, delivery)
    with suppress(ConfigurationError):
        keys.key_of(keys.rule("auto", sender.verification), delivery.request)


def fuzz_codec(data: bytes) -> None:
    """A text is refused with SerializationError, or read; what was read can be written, and is the same again."""
    text = data.decode("utf-8", "replace")
    try:
        value = codec.decode(text)
    except SerializationError:
        return
    written = codec.encode(value)
    assert codec.encode(codec.decode(written)) == written


def _latin(fuzzed: Any) -> str:
    """What a server hands on of a header: no line ends in it."""
    length = fuzzed.ConsumeIntInRange(0, 300)
    return str(fuzzed.ConsumeBytes(length).decode("latin-1").replace("\r", "").replace("\n", ""))


@cache
def _signed(name: str) -> dict[str, str]:
    sender: Sender = SENDERS[name]
    return dict(sender.deliver().headers)


def _signs_alike(body: bytes) -> bool:
    """Whether Twilio's own package signs the form as the one that was sent; an error for what is no form."""
    return (
        sign_twilio(SENDERS["twilio"].secrets[0], 0, body)["X-Twilio-Signature"]
        == _signed("twilio")["X-Twilio-Signature"]
    )


def _asked(ask: Callable[[Delivery], Any] | None, delivery: Delivery) -> None:
    if ask is not None:
        with suppress(Rejected, Unavailable, ConfigurationError):
            verdict.answer(ask, delivery)


TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "request": (fuzz_request, _TOKENS),
    "verifiers": (fuzz_verifiers, [sender.body for sender in SENDERS.values()]),
    "codec": (fuzz_codec, [codec.encode(value).encode() for value in _VALUES]),
}


def main(arguments: list[str]) -> NoReturn:
    """Fuzz what the command line names.  libFuzzer ends its process, so a child fuzzes, and we remove its inputs."""
    if not arguments or arguments[0] not in TARGETS:
        sys.exit(f"usage: python tests/fuzzing.py {'|'.join(TARGETS)} [libFuzzer's options]")
    target, seeds = TARGETS[arguments[0]]
    with tempfile.TemporaryDirectory(prefix="durable-fuzz-") as folder:
        for number, seed in enumerate(seeds):
            (Path(folder) / str(number)).write_bytes(seed)
        child = os.fork()
        if not child:
            atheris.Setup([sys.argv[0], folder, *arguments[1:]], target)
            atheris.Fuzz()
        sys.exit(_exit_code(child))


def _exit_code(child: int) -> int:
    """That of the child, which ends by itself, or by the same Ctrl-C as we."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main(sys.argv[1:])
