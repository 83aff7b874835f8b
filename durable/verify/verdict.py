"""One verdict over a request, whatever it does to a verifier."""

from __future__ import annotations

from ..errors import ConfigurationError
from ..http import Response
from .delivery import Delivery, Rejected, Unavailable
from .presets import Answer, Preset


def refusal(sender: Preset[...], delivery: Delivery) -> str | None:
    """
    Why the request is refused, in words that hold nothing of it; None: it is the sender's.

    Raises:
        ConfigurationError: A secret is malformed, or a package is missing: our trouble.
        Unavailable: What is needed to decide cannot be had now.
    """
    try:
        if sender.check(delivery) is True:
            return None
    except (ConfigurationError, Unavailable):
        raise
    except Rejected as why:
        return str(why)
    except Exception as error:
        # Hostile input: verifiers, and what they are made of, choke on it in many ways.
        return f"the verifier raised {type(error).__name__}"
    return "the signature does not fit"


def answer(ask: Answer | None, delivery: Delivery) -> Response | None:
    """
    What a handshake is answered, None for a request that is none.

    Raises:
        ConfigurationError, Unavailable: As above.
        Rejected: It asks for what is not given.
    """
    try:
        return None if ask is None else ask(delivery)
    except (ConfigurationError, Unavailable, Rejected):
        raise
    except Exception:
        # Then it is a request like any other.
        return None
