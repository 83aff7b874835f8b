"""Runs a verifier, and turns everything that it may return or raise into one verdict."""

from __future__ import annotations

from ..errors import ConfigurationError
from ..http import Response
from .delivery import Delivery, Rejected, Unavailable
from .presets import Answer, Preset


def refusal(sender: Preset[...], delivery: Delivery) -> str | None:
    """
    Why the request is refused, in words that contain nothing of it; None if the sender is verified.

    Raises:
        ConfigurationError: A secret is malformed, or a package is not installed.
        Unavailable: Something that the verifier needs cannot be fetched now.
    """
    try:
        if sender.check(delivery) is True:
            return None
    except (ConfigurationError, Unavailable):
        raise
    except Rejected as reason:
        return str(reason)
    except Exception as error:
        # Hostile input makes verifiers, and the libraries they use, raise many kinds of errors.
        return f"the verifier raised {type(error).__name__}"
    return "the signature does not match"


def answer(handshake: Answer | None, delivery: Delivery) -> Response | None:
    """
    The answer to a handshake; None for a request that is no handshake.

    Raises:
        ConfigurationError, Unavailable: As for ``refusal``.
        Rejected: The handshake is refused.
    """
    try:
        return None if handshake is None else handshake(delivery)
    except (ConfigurationError, Unavailable, Rejected):
        raise
    except Exception:
        # The handshake cannot be read, so treat it as any other request.
        return None
