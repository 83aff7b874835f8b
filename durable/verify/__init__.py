"""
Verifies who sent a webhook request: presets for well-known senders, and tools for others.

::

    create_webhook(verify=verify.stripe("env:STRIPE_WHSEC"))

You give the name of an environment variable, never the secret itself.  The web
process reads the variable for each request.  Give a list of names while you
change a secret.

This room does no I/O: what a verifier needs from outside comes with the
``Delivery``.

Files, in import order::

    delivery.py           ``Delivery``: what a verifier gets; ``Rejected`` and ``Unavailable``
    presets.py            verifiers by name, and what a webhook records of its verifier
    cloudevents.py        CloudEvents
    graph.py              Microsoft Graph
    keys.py               the dedupe key of a request
    signatures.py         tools for verifiers: HMACs, constant-time comparison, timestamps
    custom.py             ``hmac``: any HMAC in a header
    discord.py            Discord
    github.py             GitHub
    meta.py               Meta
    shopify.py            Shopify
    slack.py              Slack
    sns.py                Amazon SNS
    standard_webhooks.py  Standard Webhooks and Svix
    stripe.py             Stripe
    twilio.py             Twilio
    verdict.py            runs a verifier, and turns everything it may do into one verdict
    x.py                  X
    zoom.py               Zoom
"""

from .cloudevents import cloudevents
from .custom import hmac
from .delivery import Delivery, Rejected, Unavailable
from .discord import discord
from .github import github
from .graph import graph
from .keys import Dedupe, DedupeKey, dedupe_key
from .meta import meta
from .presets import Preset, Verification, register
from .shopify import shopify
from .slack import slack
from .sns import sns
from .standard_webhooks import standard_webhooks, svix
from .stripe import stripe
from .twilio import twilio
from .x import x
from .zoom import zoom

__all__ = [
    "Dedupe",
    "DedupeKey",
    "Delivery",
    "Preset",
    "Rejected",
    "Unavailable",
    "Verification",
    "cloudevents",
    "dedupe_key",
    "discord",
    "github",
    "graph",
    "hmac",
    "meta",
    "register",
    "shopify",
    "slack",
    "sns",
    "standard_webhooks",
    "stripe",
    "svix",
    "twilio",
    "x",
    "zoom",
]
