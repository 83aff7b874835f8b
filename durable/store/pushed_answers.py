"""
Answers that go to the process which holds the sender's connection, so that it need not read the database.

An answer is sent once it is committed, beside the id of its request.  It is encrypted as in the database, and sent only
if it is small.  The database has the answer in any case, for a process that cannot use the message.
"""

from __future__ import annotations

import base64
import json
from typing import NamedTuple

from ..errors import DecryptionError
from ..http import Response
from .vault import MARK, UnfetchedBody, Vault

#: The longest message, in characters.
LONGEST = 8 * 1024


class PushedAnswer(NamedTuple):
    """A message as it is received: the request that it answers, and the answer as it is stored."""

    request_id: str
    run_id: str
    head: str
    body: bytes

    @classmethod
    def parse(cls, message: str) -> PushedAnswer:
        """Return the answer in a message; raise ValueError for another message."""
        request_id, _, rest = message.partition(" ")
        run_id, head, body = json.loads(rest)
        return cls(request_id, run_id, head, base64.b64decode(body))


def write(own_vault: Vault, run_id: str, request_id: str, response: Response) -> str | None:
    """
    Return the message of a committed answer; None for one that is too large.

    Args:
        run_id: The run that has answered.
    """
    if len(response.body) > LONGEST:
        return None
    head, body = own_vault.seal_body(None, run_id, _place(request_id), response.head_json(), response.body)
    message = f"{request_id} {json.dumps([run_id, head, base64.b64encode(body).decode('ascii')])}"
    return message if len(message) <= LONGEST else None


def read(own_vault: Vault, pushed: PushedAnswer) -> Response:
    """
    Return the answer of a message.

    Raises:
        DecryptionError: This process does not have the key; or it has keys, and the answer is not encrypted.
    """
    if own_vault.cipher is not None and not pushed.head.startswith(MARK):
        raise DecryptionError("none", own_vault.cipher.key_ids, pushed.run_id)
    head, body = own_vault.unseal_body(pushed.run_id, _place(pushed.request_id), pushed.head, pushed.body)
    assert not isinstance(body, UnfetchedBody), "a large answer is not sent"
    return Response.from_head(head, body)


def _place(request_id: str) -> str:
    """The place of the answer within its run, which encryption binds it to."""
    return f"pushed answer {request_id}"
