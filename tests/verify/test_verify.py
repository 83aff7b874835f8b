"""Verifiers as functions: what they accept and what they refuse."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import discord_interactions
import gidgethub.sansio
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from senders import NOW, SENDERS, TOPIC, URL, Sender, sign_twilio, sns_message

from durable import ConfigurationError, Request, Response, verify
from durable.errors import DurableError
from durable.verify import Delivery, Rejected, Verification, keys, presets, verdict

ALL = pytest.mark.parametrize("sender", SENDERS.values(), ids=SENDERS)
DATED = pytest.mark.parametrize(
    "sender", [s for s in SENDERS.values() if s.dated], ids=[n for n, s in SENDERS.items() if s.dated]
)


def refused(sender: Sender, delivery: Delivery) -> str | None:
    return verdict.refusal(presets.find(sender.verification.by), delivery)


@ALL
def test_what_the_sender_signs_is_accepted(sender):
    """Each sender's signature is accepted; its own library makes it, if there is one."""
    assert refused(sender, sender.deliver()) is None


@ALL
def test_a_changed_byte_is_refused(sender):
    """One changed byte anywhere in the body is refused."""
    for place in range(0, len(sender.body), 3):
        changed = bytearray(sender.body)
        changed[place] ^= 1

        assert refused(sender, sender.deliver(sent=bytes(changed))) is not None


@ALL
def test_another_secret_is_refused(sender):
    """A signature with another secret is refused."""
    assert refused(sender, sender.deliver(signed_with=1)) is not None


@ALL
def test_while_a_secret_is_changed_either_fits(sender):
    """Signatures with the old and the new secret are accepted, in both orders of the names."""
    for signed_with in (0, 1):
        for known in ((0, 1), (1, 0)):
            assert refused(sender, sender.deliver(signed_with=signed_with, known=known)) is None


@ALL
def test_without_a_header_it_is_refused(sender):
    """Without one of its signature's headers, a request is refused."""
    told = sender.deliver().headers
    needed = [n for n, _ in told if n.lower() not in ("content-type", "x-github-delivery", "x-shopify-webhook-id")]
    for name in needed:
        left = {n: v for n, v in told if n != name}

        assert refused(sender, sender.deliver(headers=left)) is not None, name


@DATED
@pytest.mark.parametrize(("seconds", "fits"), [(-300, True), (-301, False), (300, True), (301, False)])
def test_time_is_held_to_both_ways(sender, seconds, fits):
    """A timestamp more than five minutes ago, or in the future, is refused."""
    assert (refused(sender, sender.deliver(at=NOW + seconds)) is None) == fits


@ALL
def test_without_secrets_nothing_is_accepted(sender):
    """An empty list of secrets accepts nothing; creating such a verifier is refused before that."""
    assert refused(sender, sender.deliver(known=())) is not None


@ALL
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_hostile_input_is_refused_and_no_more(sender, data):
    """Random headers and bodies raise no exception and are never accepted."""
    told = dict(sender.deliver().headers)
    latin = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=80)
    name = data.draw(st.sampled_from(sorted(told)))
    bad = data.draw(
        latin
        | st.sampled_from(["", ",", "=", "t=,v1=", "t=1,t=2", "v1", "v1," * 50, "v0=", "sha256=", "9" * 300, "\xe9"])
        | st.just("x" * 100_000)
    )
    body = data.draw(st.binary(max_size=60) | st.sampled_from([b"[" * 100_000, b"\xff\xfe", b"null", b"{}"]))
    if name == "Content-Type":
        body += b"!"
    headers = {**told, name: bad}
    if headers == told and body == sender.body:
        return

    assert refused(sender, sender.deliver(headers=headers, sent=body)) is not None


def test_what_is_signed_by_hand_here_is_what_the_senders_receivers_accept():
    """Libraries that verify GitHub and Discord accept our signatures, and refuse a changed byte."""
    github, discord = SENDERS["github"], SENDERS["discord"]
    told = {"X-GitHub-Event": "ping", "Content-Type": "application/json"} | dict(github.deliver().headers)
    headers = {name.lower(): value for name, value in told.items()}
    event = gidgethub.sansio.Event.from_http(headers, github.body, secret=github.secrets[0].decode())
    assert event.data == json.loads(github.body)
    with pytest.raises(gidgethub.ValidationFailure):
        gidgethub.sansio.Event.from_http(headers, github.body + b" ", secret=github.secrets[0].decode())

    signed = discord.deliver().headers
    proof = (signed["X-Signature-Ed25519"], signed["X-Signature-Timestamp"], discord.secrets[0].decode())
    assert discord_interactions.verify_key(discord.body, *proof)
    assert not discord_interactions.verify_key(discord.body + b" ", *proof)


# Single senders


def test_stripe_signs_with_both_secrets_of_a_rotation():
    """Of several v1 in one header, one has to match."""
    stripe = SENDERS["stripe"]
    old, new = (stripe.deliver(signed_with=i).headers["Stripe-Signature"] for i in (0, 1))
    both = {"Stripe-Signature": f"{old},{new.partition(',')[2]}"}

    for known in (0, 1):
        assert refused(stripe, stripe.deliver(headers=both, known=(known,))) is None


@pytest.mark.parametrize("name", ["standard_webhooks", "standard_webhooks, a key pair", "svix"])
def test_the_id_of_standard_webhooks_takes_nothing_from_the_body(name):
    """The signature still matches if the body's first part moves into the id, so an id with a dot is refused."""
    sender = SENDERS[name]
    rest = f"{NOW}.forged".encode()
    headers = dict(sender.deliver(b"a." + rest).headers)
    (id_header,) = [header for header in headers if header.endswith("-id")]
    moved = {**headers, id_header: f"{headers[id_header]}.{NOW}.a"}

    assert refused(sender, sender.deliver(b"a." + rest, headers=headers)) is None
    assert refused(sender, sender.deliver(b"forged", headers=moved)) == "the id has a dot"


def test_shopify_signs_bytes_not_json():
    """JSON that was parsed and written again has other bytes, so it is refused."""
    shopify = SENDERS["shopify"]
    again = json.dumps(json.loads(shopify.body), separators=(",", ":")).encode()

    assert refused(shopify, shopify.deliver(sent=again)) is not None


@pytest.mark.parametrize("public", ["https://hooks.test", "https://hooks.test:443", "https://hooks.test:8443"])
@pytest.mark.parametrize("signed_port", ["", ":443", ":8443"])
def test_twilio_spells_the_port_or_not(public, signed_port):
    """The signed URL may have the scheme's default port or not; any other port counts."""
    twilio = SENDERS["twilio"]
    path = "/a%20b?x=%2F"
    headers = sign_twilio(twilio.secrets[0], NOW, twilio.body, f"https://hooks.test{signed_port}{path}")
    delivery = replace(twilio.deliver(headers=headers), url=public + path)
    standard = ("", ":443")

    fits = signed_port == ":8443" if public.endswith(":8443") else signed_port in standard
    assert (refused(twilio, delivery) is None) == fits


def test_twilio_signs_json_by_its_hash_in_the_url():
    """``bodySHA256``: the signed URL has the hash of the body."""
    twilio = SENDERS["twilio"]
    body = b'{"a": 1}'
    url = f"{URL}?bodySHA256={hashlib.sha256(body).hexdigest()}"
    headers = sign_twilio(twilio.secrets[0], NOW, b"", url) | {"Content-Type": "application/json"}
    delivery = twilio.deliver(headers=headers)
    for sent, fits in ((body, True), (b'{"a": 2}', False)):
        request = Request("POST", url, headers, sent)

        assert (refused(twilio, replace(delivery, request=request, url=url)) is None) == fits


MULTIPART_FILE = (
    b'--b\r\nContent-Disposition: form-data; name="a"; filename="a.txt"\r\n\r\nforged\r\n--b--\r\n',
    "multipart/form-data; boundary=b",
)
FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"forged": true}', "application/json"),
        (b'{"forged": true}', None),
        (b"forged", "text/plain"),
        (b"forged=1", None),
        (b"forged=1", "application/x-www-form-urlencode"),
        (b"forged=1&b=\xff", FORM),
        (b"\xff", FORM),
        (b"&&&", FORM),
        (b"&", FORM + "; charset=UTF-8"),
        MULTIPART_FILE,
        (MULTIPART_FILE[0][:-5], MULTIPART_FILE[1]),
        (b"forged", "multipart/form-data; boundary=b"),
        (b"forged", "multipart/form-data"),
    ],
)
def test_twilio_refuses_a_body_that_the_signature_of_its_url_leaves_out(body, content_type):
    """With the signature of a bare URL, any body that was not signed is refused."""
    twilio = SENDERS["twilio"]
    bare = {"X-Twilio-Signature": sign_twilio(twilio.secrets[0], NOW, b"", URL)["X-Twilio-Signature"]}
    headers = bare if content_type is None else {**bare, "Content-Type": content_type}

    assert refused(twilio, replace(twilio.deliver(b"", headers=headers), url=URL)) is None
    assert refused(twilio, replace(twilio.deliver(body, headers=headers), url=URL)) is not None


@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        (b"a=%EF%BF%BD", b"a=\xff"),
        (b"a=%25FF", b"a=%FF"),
        (b"a=1", b"\xef\xbb\xbfa=1"),
        (b"%EF%BB%BFa=1", b"\xef\xbb\xbfa=1"),
        (b"a=1", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'),
    ],
)
def test_twilio_refuses_a_form_that_is_read_as_another_than_it_is(signed, sent):
    """A form with bytes that a parser replaces or drops, or in another encoding, is refused."""
    twilio = SENDERS["twilio"]
    headers = sign_twilio(twilio.secrets[0], NOW, signed)
    assert refused(twilio, twilio.deliver(signed, headers=headers)) is None
    for content_type in (FORM, "multipart/form-data; boundary=b"):
        changed = {**headers, "Content-Type": content_type}

        assert refused(twilio, twilio.deliver(sent, headers=changed)) is not None


@pytest.mark.parametrize("content_type", [FORM, FORM + "; charset=UTF-8", FORM.upper()])
@pytest.mark.parametrize("form", [b"", b"a=", b"a", b"Body=caf%C3%A9+%25FF&To=%2B1&a=2&a=1&a=2", "é=ü".encode()])
def test_twilio_accepts_its_own_forms(form, content_type):
    """Forms that Twilio's own validator accepts: empty, with repeated and blank fields, UTF-8, a charset."""
    twilio = SENDERS["twilio"]
    headers = {**sign_twilio(twilio.secrets[0], NOW, form), "Content-Type": content_type}

    assert refused(twilio, twilio.deliver(form, headers=headers)) is None


def sns(body: bytes, **options: Any) -> Delivery:
    wanted = verify.sns(TOPIC, **options)
    return replace(SENDERS["github"].deliver(body, headers={"Content-Type": "text/plain"}), options=wanted.options)


def sns_refusal(body: bytes, **options: Any) -> str | None:
    return verdict.refusal(verify.sns, sns(body, **options))


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("fields", [{}, {"Subject": "s"}])
def test_sns_signs_the_fields_of_a_message(version, fields):
    """SHA-1 and SHA-256, with a subject and without; a changed field is refused."""
    body = sns_message(version=version, **fields)

    assert sns_refusal(body) is None
    assert sns_refusal(body.replace(b"hello", b"hallo")) is not None


def test_sns_signs_lines_that_can_be_split_in_one_way_only():
    """The signature still matches if text moves into the id or subject, so a line break there is refused."""
    signed = json.loads(sns_message(Message="a\nMessageId\nb\nSubject\nc"))
    assert sns_refusal(json.dumps(signed).encode()) is None
    for moved in (
        {"Message": "a", "MessageId": "b\nSubject\nc\nMessageId\nm-1"},
        {"Message": "a", "MessageId": "b", "Subject": "c\nMessageId\nm-1"},
    ):
        assert sns_refusal(json.dumps(signed | moved).encode()) == "a field of the message has a line break"


@pytest.mark.parametrize("twice", [b'"Message": "forged", ', b'"More": {"a": 1, "a": 2}, '])
def test_sns_with_a_name_twice_is_refused(twice):
    """Parsers differ in which of the two values they return."""
    body = sns_message()

    assert sns_refusal(body.replace(b"{", b"{" + twice, 1)) == "an object in the body has the same name twice"
    assert sns_refusal(body) is None


def test_sns_of_another_topic_is_refused():
    """SNS signs the messages of all customers with the same keys, so only the topic tells them apart."""
    assert sns_refusal(sns_message(TopicArn=TOPIC + "2")) == "the message belongs to another topic"


def test_sns_with_another_key_is_refused():
    """A signature that does not match the certificate is refused."""
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    assert sns_refusal(sns_message(key=stranger)) is not None


def test_sns_is_old_after_two_hours():
    """SNS tries for an hour; a message that is older than the tolerance is refused."""
    assert sns_refusal(sns_message(at=NOW - 7200)) is None
    assert sns_refusal(sns_message(at=NOW - 7201)) is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-west-1.amazonaws.com/a.pem",
        "https://127.0.0.1/a.pem",
        "https://169.254.169.254/a.pem",
        "https://sns.eu-west-1.amazonaws.com.evil.test/a.pem",
        "https://sns.eu-west-1.amazonaws.com@evil.test/a.pem",
        "https://sns.eu-west-1.amazonaws.com:8443/a.pem",
        "https://evil.test/sns.eu-west-1.amazonaws.com/a.pem",
        "https://sns.eu-west-1.amazonaws.com/a.pem?x=https://evil.test",
        "https://sns.eu-west-1.amazonaws.com/a.pem\n",
        "https://s3.eu-west-1.amazonaws.com/a.pem",
        "",
    ],
)
def test_sns_fetches_from_sns_only(url):
    """A certificate or confirmation on another host is refused before anything is fetched."""
    fetched: list[str] = []
    delivery = replace(sns(sns_message(SigningCertURL=url)), fetch=lambda url: fetched.append(url) or b"")

    assert verdict.refusal(verify.sns, delivery) == "the certificate's URL is not of SNS"
    confirmation = sns_message(Type="SubscriptionConfirmation", Token="t", SubscribeURL=url)
    with pytest.raises(Rejected):
        verdict.answer(verify.sns.handshake, replace(sns(confirmation, confirm=True), fetch=delivery.fetch))
    assert fetched == []


def test_sns_subscriptions_are_confirmed_only_when_asked_for():
    """Without ``confirm`` the confirmation is delivered; with it the URL is fetched, once."""
    url = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=" + TOPIC + "&Token=abc"
    body = sns_message(Type="SubscriptionConfirmation", Token="abc", SubscribeURL=url)
    fetched: list[str] = []

    def ask(**options: Any) -> Response | None:
        assert sns_refusal(body, **options) is None
        return verdict.answer(
            verify.sns.handshake, replace(sns(body, **options), fetch=lambda url: fetched.append(url) or b"")
        )

    assert ask() is None
    assert fetched == []
    assert ask(confirm=True) == Response("", 200)
    assert fetched == [url]


def shown(preset: Any, body: bytes = b"", method: str = "POST", query: str = "", **headers: str) -> Delivery:
    names = {"secret": (b"s3",), "verify_token": (b"mine",)}
    options = {"origins": ["eventgrid.azure.net"]}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Delivery(request=Request(method, URL + query, named, body), url=URL, resolved=names, options=options)


def test_graph_compares_the_state_of_each_notification():
    """Each notification needs the right clientState, and there has to be at least one."""
    good, bad = {"clientState": "s3"}, {"clientState": "s4"}
    for value, fits in (([good], True), ([good, good], True), ([good, bad], False), ([], False), ([{}], False)):
        body = json.dumps({"value": value}).encode()

        assert (verdict.refusal(verify.graph, shown(verify.graph, body)) is None) == fits


def test_graph_with_a_name_twice_is_refused():
    """A body with two lists of notifications is refused: parsers differ in which one they return."""
    good, bad = '"value": [{"clientState": "s3"}]', '"value": [{"clientState": "s4"}]'

    assert verdict.refusal(verify.graph, shown(verify.graph, f"{{{good}}}".encode())) is None
    assert verdict.refusal(verify.graph, shown(verify.graph, f"{{{bad}, {good}}}".encode())) is not None


def test_graph_is_answered_its_token_as_text():
    """The token is decoded, and escaped so that no browser shows it as a page."""
    ask = verify.graph.greeting
    answer = verdict.answer(ask, shown(verify.graph, query="?validationToken=Validation%3A+Testing%20%3Cscript%3E"))

    assert answer is not None
    assert answer.body == b"Validation: Testing &lt;script&gt;"
    assert answer.content_type == "text/plain; charset=utf-8"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert verdict.answer(ask, shown(verify.graph, b"{}")) is None


def test_cloudevents_shows_a_token():
    """The token may be a bearer token or in the query; a wrong or missing one is refused."""
    check = verify.cloudevents
    assert verdict.refusal(check, shown(check, Authorization="Bearer s3")) is None
    assert verdict.refusal(check, shown(check, query="?access_token=s3")) is None
    assert verdict.refusal(check, shown(check, Authorization="Bearer s4")) is not None
    assert verdict.refusal(check, shown(check, Authorization="Basic s3")) is not None
    assert verdict.refusal(check, shown(check)) is not None


def test_cloudevents_may_send_when_its_origin_is_named():
    """OPTIONS of an allowed origin gets 200, with a rate if it asked for one; another origin gets 403."""
    ask = verify.cloudevents.greeting
    known = shown(None, method="OPTIONS", WebHook_Request_Origin="EventGrid.azure.net", WebHook_Request_Rate="120")
    allowed = verdict.answer(ask, known)
    stranger = verdict.answer(ask, shown(None, method="OPTIONS", WebHook_Request_Origin="evil.test"))

    assert allowed is not None
    assert dict(allowed.headers) == {
        "Allow": "POST",
        "WebHook-Allowed-Origin": "eventgrid.azure.net",
        "WebHook-Allowed-Rate": "*",
    }
    assert stranger is not None
    assert stranger.status == 403


def test_meta_is_answered_its_challenge_for_the_right_token():
    """GET with ``hub.mode=subscribe``; 403 for a wrong token; anything else is no handshake."""
    ask = verify.meta.greeting

    def answer(query: str) -> Response | None:
        return verdict.answer(ask, shown(None, method="GET", query=query))

    right = answer("?hub.mode=subscribe&hub.verify_token=mine&hub.challenge=1158201444")
    assert right is not None
    assert (right.status, right.body) == (200, b"1158201444")
    wrong = answer("?hub.mode=subscribe&hub.verify_token=other&hub.challenge=1")
    assert wrong is not None
    assert (wrong.status, wrong.body) == (403, b"")
    assert answer("?hub.challenge=1") is None


def test_x_is_answered_no_text_that_could_be_a_body():
    """The challenge does not sign a text that could be a delivery."""
    ask = verify.x.greeting
    answer = verdict.answer(ask, shown(None, method="GET", query="?crc_token=abc-1"))
    forged = verdict.answer(ask, shown(None, method="GET", query="?crc_token=%7B%22id%22%3A1%7D"))

    assert answer is not None
    signature = json.loads(answer.body)["response_token"]
    assert verdict.refusal(verify.x, shown(None, b"abc-1", x_twitter_webhooks_signature=signature)) is not None
    assert forged is not None
    assert forged.status == 403


def test_zoom_is_answered_its_token_sealed():
    """``endpoint.url_validation``, by the published algorithm."""
    body = b'{"event": "endpoint.url_validation", "payload": {"plainToken": "q9"}}'
    answer = verdict.answer(verify.zoom.handshake, shown(None, body))

    assert answer is not None
    assert json.loads(answer.body) == {
        "plainToken": "q9",
        "encryptedToken": hmac.new(b"s3", b"q9", hashlib.sha256).hexdigest(),
    }


def test_slack_is_answered_its_challenge():
    """``url_verification``, and the check of a slash command's certificate."""
    body = b'{"type": "url_verification", "challenge": "<c>"}'
    answer = verdict.answer(verify.slack.handshake, shown(None, body))

    assert answer is not None
    assert (answer.body, answer.content_type) == (b"<c>", "text/plain; charset=utf-8")
    assert verdict.answer(verify.slack.greeting, shown(None, method="GET", query="?ssl_check=1")) == Response("", 200)
    form = shown(None, b"ssl_check=1&token=x", Content_Type="application/x-www-form-urlencoded")
    assert verdict.answer(verify.slack.greeting, form) == Response("", 200)
    assert verdict.answer(verify.slack.handshake, shown(None, b'{"type": "event_callback"}')) is None


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (b'{"type": 1}', (200, b'{"type":1}')),
        (b'{"type": 0}', (204, b"")),
        (b'{"type": 1, "event": {}}', None),
        (b'{"type": 2}', None),
        (b"[]", None),
    ],
)
def test_discord_is_answered_its_ping(body, answer):
    """Type 1 of an interaction and type 0 of a webhook event are PING; type 1 of a webhook event is not."""
    found = verdict.answer(verify.discord.handshake, shown(None, body))

    assert (None if found is None else (found.status, found.body)) == answer


# Options


def test_only_names_of_secrets_are_recorded():
    """The recorded JSON has the references and the options, and is read back unchanged."""
    wanted = verify.stripe(["env:NEW", "env:OLD"], tolerance="1m")
    text = json.dumps(wanted.as_json())

    assert text == (
        '{"by": "stripe", "secrets": {"secret": ["env:NEW", "env:OLD"]}, "options": {"tolerance": 60000000}}'
    )
    assert Verification.from_json(json.loads(text)) == wanted


@pytest.mark.parametrize(
    "given", ["whsec_c2VjcmV0", ["env:OK", "hunter2"], "env:", "env:a b", b"hunter2", [b"hunter2"]]
)
def test_a_secret_itself_is_refused_and_not_repeated(given):
    """The error for a secret in place of its name does not repeat it."""
    with pytest.raises((ValueError, TypeError)) as caught:
        verify.stripe(given)

    assert "hunter2" not in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize("given", [[], ""])
def test_no_secret_is_an_error_not_a_welcome(given):
    """An empty list of names is refused."""
    with pytest.raises(ValueError, match="env:NAME"):
        verify.github(given)


@pytest.mark.parametrize(
    "options",
    [
        {"message": "{timestamp}"},
        {"message": "{timestamp}.{body}"},
        {"timestamp_header": "X-T"},
        {"algorithm": "md5"},
        {"encoding": "binary"},
        {"message": "{body}{host}"},
    ],
)
def test_an_hmac_that_signs_nothing_is_refused(options):
    """A message without the body, an unsigned timestamp and an unknown field are refused."""
    with pytest.raises(ValueError, match=r"message|timestamp|algorithm"):
        verify.hmac("env:A", header="X-S", **options)


def hmac_refusal(signature: str, *, secret: bytes = b"s3", body: bytes = b"{}", **options: Any) -> str | None:
    wanted = verify.hmac("env:A", header="X-Own", **options)
    request, known = Request(headers={"X-Own": signature}, data=body), {"secret": (secret,)}
    return verdict.refusal(verify.hmac, Delivery(request=request, resolved=known, options=wanted.options))


HEX = hmac.new(b"s3", b"{}", "sha256").hexdigest()
B64 = base64.b64encode(bytes.fromhex(HEX)).decode()


@pytest.mark.parametrize("prefix", ["", "sha256=", "HMAC ", "v1:"])
@pytest.mark.parametrize("blank", ["", " ", "\t", "  "])
@pytest.mark.parametrize("digest", [HEX, HEX.upper(), HEX[:32].upper() + HEX[32:]])
def test_an_hmac_in_hex_may_be_in_capitals_and_after_a_blank(prefix, blank, digest):
    """Upper and lower case digits are the same bytes, and a blank after the prefix is ignored."""
    assert hmac_refusal(prefix + blank + digest, prefix=prefix) is None
    for other in ({"secret": b"s4"}, {"body": b"{} "}):
        assert hmac_refusal(prefix + blank + digest, prefix=prefix, **other) is not None


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_an_hmac_in_base64_may_stand_after_a_blank(blank):
    """In base64 the case counts."""
    assert hmac_refusal("sha256=" + blank + B64, prefix="sha256=", encoding="base64") is None
    assert hmac_refusal("sha256=" + blank + B64.swapcase(), prefix="sha256=", encoding="base64") is not None


@pytest.mark.parametrize(
    "signature",
    [
        HEX,
        "SHA256=" + HEX,
        "sha1=" + HEX,
        "sha256 =" + HEX,
        "sha256=sha256=" + HEX,
        "sha256=",
        "sha256= ",
        "",
        "sha256=" + HEX + HEX,
        "sha256=" + HEX + " 0",
        "sha256=" + HEX[:-1],
        "sha256=" + HEX[:32] + " " + HEX[32:],
        "sha256=0x" + HEX,
        "sha256=\xa0" + HEX,
    ],
)
def test_an_hmac_without_its_prefix_or_in_pieces_is_refused(signature):
    """Any other difference is refused."""
    assert hmac_refusal(signature, prefix="sha256=") is not None


@pytest.mark.parametrize(("by", "secret"), [("standard_webhooks", b"whsec_!"), ("discord", b"zz"), ("discord", b"00")])
def test_a_malformed_secret_is_our_trouble(by, secret):
    """A malformed secret is a ConfigurationError, so it is not a 401."""
    name = by
    sender = SENDERS[name]
    delivery = replace(sender.deliver(), resolved={"secret": (secret,)})

    with pytest.raises(ConfigurationError):
        refused(sender, delivery)


def test_a_function_becomes_a_verifier_by_its_name():
    """It is recorded by name, and gets the secrets, the options and the request."""

    @verify.register("test.acme")
    def acme(delivery: Delivery) -> bool:
        return delivery.headers["X-Key"].encode() in delivery.secrets and delivery.options["level"] == 3

    wanted = acme("env:ACME", level=3)
    assert wanted.as_json() == {"by": "test.acme", "secrets": {"secret": ("env:ACME",)}, "options": {"level": 3}}
    good = Delivery(request=Request(headers={"X-Key": "k"}), resolved={"secret": (b"k",)}, options={"level": 3})
    assert verdict.refusal(presets.find("test.acme"), good) is None
    assert verdict.refusal(acme, replace(good, request=Request())) == "the verifier raised BadRequestKeyError"
    with pytest.raises(ConfigurationError, match=r"test\.acme"):

        @verify.register("test.acme")
        def other(_delivery: Delivery) -> bool:
            return True


@pytest.mark.parametrize("returned", [None, False, 1, "yes", object()])
def test_only_true_accepts(returned):
    """A verifier that returns anything but True accepts nothing."""
    careless = presets.Preset(name="careless", check=lambda _: returned, make=lambda: Verification(by="careless"))

    assert verdict.refusal(careless, Delivery(request=Request())) is not None


# Keys


def key(dedupe: Any, request: Request, wanted: Verification | None = None) -> str | None:
    return keys.key_of(keys.rule(dedupe, wanted), request)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("stripe", (b'{"id": "evt_1"}', {})),
        ("github", (b"", {"X-GitHub-Delivery": "g"})),
        ("slack", (b'{"event_id": "Ev1"}', {})),
        ("slack", (b"trigger_id=1", {"Content-Type": "application/x-www-form-urlencoded"})),
        ("slack", (b'payload={"trigger_id":"1"}', {"Content-Type": "application/x-www-form-urlencoded"})),
        ("shopify", (b"", {"X-Shopify-Webhook-Id": "w"})),
        ("twilio", (b"", {"I-Twilio-Idempotency-Token": "t"})),
        ("discord", (b'{"id": "1"}', {})),
        ("standard_webhooks", (b"", {"webhook-id": "m"})),
        ("svix", (b"", {"svix-id": "m"})),
    ],
)
def test_presets_bring_their_own_key(name, told):
    """Without ``dedupe``, a copy has the same key, and a request without an id has none."""
    body, headers = told
    wanted = SENDERS[name].verification

    found = key(None, Request(headers=headers, data=body), wanted)
    assert found is not None
    assert len(found) == 64
    assert found == key(None, Request(headers=headers, data=body), wanted)
    assert key(None, Request(data=b"{}"), wanted) is None
    assert key(False, Request(headers=headers, data=body), wanted) is None


def test_a_key_may_be_named_in_many_ways():
    """A header, several headers, a pointer, a preset, a function; no key if the part is missing."""

    @verify.dedupe_key("test.order")
    def order(request: Request) -> str | None:
        return request.json()["order"]

    body = b'{"data": [{"id": 7, "a/b": "x"}], "order": "o1", "flag": true}'
    request = Request(headers={"X-One": "1", "X-Two": "2"}, data=body)
    for dedupe in ("X-One", ["x-one", "x-two"], "/data/0/id", "/data/0/a~1b", order):
        assert key(dedupe, request) is not None, dedupe
    for dedupe in ("X-None", ["X-One", "X-None"], "/data/1/id", "/data/id", "/flag", "/data", "/data/00/id"):
        assert key(dedupe, request) is None, dedupe
    assert key(order, Request(data=b"\xff")) is None
    assert key(verify.stripe, Request(data=b'{"id": "e"}')) is not None


def test_auto_takes_the_presets_key_before_well_known_headers():
    """``auto`` then tries each well-known header, and those of CloudEvents together."""
    stripe = SENDERS["stripe"].verification
    both = Request(headers={"Idempotency-Key": "k"}, data=b'{"id": "e"}')

    assert key("auto", both, stripe) == key(None, both, stripe)
    assert key("auto", both) == key("auto", Request(headers={"idempotency-key": "k"}))
    assert key("auto", Request(headers={"ce-id": "1"})) is None
    assert key("auto", Request(headers={"ce-id": "1", "ce-source": "s"})) is not None
    assert key("auto", Request(headers={"webhook-id": "k"})) != key("auto", Request(headers={"svix-id": "k"}))


@pytest.mark.parametrize("dedupe", [7, True, ["a b"], [], "", "x y", b"id", verify.meta])
def test_what_is_no_rule_is_refused(dedupe):
    """A malformed rule is an error."""
    with pytest.raises((TypeError, ValueError)):
        keys.rule(dedupe, None)


def test_a_name_that_this_process_does_not_know_is_our_trouble():
    """A verifier or dedupe key whose module is not imported is a ConfigurationError."""
    with pytest.raises(DurableError, match="Import the module"):
        presets.find("nobody")
    with pytest.raises(DurableError, match="Import the module"):
        keys.key_of({"by": "function", "name": "nobody"}, Request())


@given(st.binary(max_size=200), st.sampled_from(sorted(SENDERS)))
@settings(max_examples=100, deadline=None)
def test_no_body_breaks_a_key(body, name):
    """Reading a key never raises, since some senders do not sign the body."""
    wanted = SENDERS[name].verification
    for kind in ("application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        found = key("auto", Request(headers={"Content-Type": kind}, data=body), wanted)

        assert found is None or len(found) == 64


def test_the_base64_of_a_signature_is_held_to_its_alphabet():
    """A base64 signature with other characters in it is refused."""
    shopify = SENDERS["shopify"]
    signature = shopify.deliver().headers["X-Shopify-Hmac-SHA256"]
    assert base64.b64decode(signature + "\n") == base64.b64decode(signature)

    assert refused(shopify, shopify.deliver(headers={"X-Shopify-Hmac-SHA256": signature + " "})) is not None
