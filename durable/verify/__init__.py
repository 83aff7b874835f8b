"""
Who sends: verifiers for webhooks, each a function of a request and the secrets that it is signed with.

::

    create_webhook(verify=verify.stripe("env:STRIPE_WHSEC"))

A secret is named, never given: the web process looks the variable up when a
request comes in.  A list of names is for the time while a secret is changed.

Files, in import order::

    delivery.py           what a verifier looks at, and how it refuses
    presets.py            verifiers by name, and what a webhook records of its own
    cloudevents.py        CloudEvents
    graph.py              Microsoft Graph
    keys.py               the key by which a duplicate is recognised
    signatures.py         constant-time comparison, several secrets, a window of time
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
    verdict.py            runs a verifier, and turns whatever it does into one verdict
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
