"""Ciphers, their keys, and what a vault makes of values with them; no database."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable.cipher import AesGcm, Cipher, Fernet, aes_gcm, fernet, from_setting
from durable.engine.settings import resolve
from durable.errors import ConfigurationError, DecryptionError
from durable.store.vault import Vault

KEYS = {"new": os.urandom(32), "old": os.urandom(32)}
MAKERS = (aes_gcm, fernet)
NO_DATABASE: Any = None


def text_of(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode()


@pytest.mark.parametrize("make", MAKERS)
@given(data=st.binary(max_size=2000), context=st.binary(max_size=50))
def test_what_is_encrypted_is_decrypted(make, data, context):
    """Any bytes, under any key that is known, in their own context."""
    cipher = make(KEYS)
    for key_id in cipher.key_ids:
        assert cipher.decrypt(key_id, cipher.encrypt(key_id, data, context), context) == data


@pytest.mark.parametrize("make", MAKERS)
def test_a_token_is_bound_to_its_context_and_key(make):
    """Moved, changed or given to another key it is refused, and no two of the same value are alike."""
    cipher = make(KEYS)
    token = cipher.encrypt("new", b"value", b"here")

    assert token != cipher.encrypt("new", b"value", b"here")
    for key_id, given_token, context in (
        ("new", token, b"there"),
        ("old", token, b"here"),
        ("new", token[:-1] + bytes([token[-1] ^ 1]), b"here"),
        ("new", b"", b"here"),
    ):
        with pytest.raises(Exception):  # noqa: B017, PT011  each library has its own
            cipher.decrypt(key_id, given_token, context)


@pytest.mark.parametrize("make", MAKERS)
@given(text=st.text(max_size=500).map(lambda s: f'"{s}"'.encode("utf-8", "replace").decode()))
def test_a_sealed_value_is_not_json_and_comes_back(make, text):
    """Through the vault: marked, unreadable, and the same afterwards; a plain one from before is read as it is."""
    vault = Vault(make(KEYS))

    sealed = vault.seal(NO_DATABASE, "run", "r#1", text)

    assert sealed is not None
    assert sealed.startswith("~s.new.")
    assert sealed.isascii()
    assert vault.unseal("run", "r#1", sealed) == text
    assert vault.unseal("run", "r#1", text) == text


@given(head=st.text(max_size=50).map(lambda s: "{" + ascii(s) + "}"), body=st.binary(max_size=500))
def test_a_body_comes_back_whatever_it_looks_like(head, body):
    """Also one that begins as our own marks do, with a cipher and without."""
    for vault in (Vault(), Vault(aes_gcm(KEYS))):
        for each in (body, b"~r." + body, b"~s.new." + body):
            stored = vault.seal_body(NO_DATABASE, "run", "request 1", head, each)

            assert vault.unseal_body("run", "request 1", *stored) == (head, each)


def test_a_small_value_without_a_cipher_is_stored_as_it_is():
    """The very text: nothing that is there has to be migrated."""
    text = '{"a":1}'

    assert Vault().seal(NO_DATABASE, "run", "r#1", text) is text
    assert Vault().unseal("run", "r#1", text) is text


@pytest.mark.parametrize("place", [("other", "r#1"), ("run", "r#2")])
def test_a_value_cannot_be_moved(place):
    """To another run, or another operation."""
    vault = Vault(aes_gcm(KEYS))
    sealed = vault.seal(NO_DATABASE, "run", "r#1", '"value"')

    with pytest.raises(DecryptionError, match=r"'new'.*moved") as caught:
        vault.unseal(*place, sealed)

    assert caught.value.key_id == "new"


def test_rotation():
    """A new first key writes, the old one still reads; without the old one the error names it and the setting."""
    old, both, new = (Vault(aes_gcm({k: KEYS[k] for k in ids})) for ids in (["old"], ["new", "old"], ["new"]))
    before = old.seal(NO_DATABASE, "run", "r#1", '"value"')

    assert both.unseal("run", "r#1", before) == '"value"'
    assert both.seal(NO_DATABASE, "run", "r#1", '"value"').startswith("~s.new.")
    with pytest.raises(DecryptionError, match=r"'old'.*has 'new'.*DURABLE_CIPHER"):
        new.unseal("run", "r#1", before)
    with pytest.raises(DecryptionError, match="has no cipher"):
        Vault().unseal("run", "r#1", before)


def test_digests_are_keyed_and_survive_a_rotation():
    """What is recorded says nothing without the key, and is compared under the key that it says."""
    old, both, new = (Vault(aes_gcm({k: KEYS[k] for k in ids})) for ids in (["old"], ["new", "old"], ["new"]))
    digest = "0123456789abcdef" * 2
    recorded = old.keyed(digest)

    assert digest not in recorded
    assert len(recorded) <= 64
    assert recorded == old.keyed(digest)
    assert both.is_digest(recorded, digest, "run")
    assert not both.is_digest(recorded, digest[::-1], "run")
    assert both.is_digest(digest, digest, "run")  # of before the cipher
    assert Vault().keyed(digest) == digest
    with pytest.raises(DecryptionError, match="'old'"):
        new.is_digest(recorded, digest, "run")


@pytest.mark.parametrize(("name", "kind"), [("aes-gcm", AesGcm), ("fernet", Fernet)])
def test_the_setting_as_text(monkeypatch, name, kind):
    """``aes-gcm:env:NAME``: the variable holds id:key, the first one writes."""
    monkeypatch.setenv("THE_KEYS", ", ".join(f"{key_id}:{text_of(key)}" for key_id, key in KEYS.items()))
    monkeypatch.setenv("DURABLE_CIPHER", f"{name}:env:THE_KEYS")

    cipher = resolve({}, lambda name: None).cipher

    assert isinstance(cipher, kind)
    assert list(cipher.key_ids) == ["new", "old"]
    assert cipher.decrypt("old", kind(KEYS).encrypt("old", b"v", b"c"), b"c") == b"v"


def test_keys_by_reference(monkeypatch):
    """Each key may be the name of a variable, or base64 in either alphabet."""
    monkeypatch.setenv("ONE", text_of(KEYS["new"]))
    cipher = aes_gcm({"new": "env:ONE", "old": base64.b64encode(KEYS["old"]).decode()})

    for key_id in KEYS:
        assert aes_gcm(KEYS).decrypt(key_id, cipher.encrypt(key_id, b"v", b"c"), b"c") == b"v"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "no key"),
        ({"a b": KEYS["new"]}, "'a b' is not a key id"),
        ({"x" * 17: KEYS["new"]}, "is not a key id"),
        ({"k": b"short"}, "'k' is not 32 bytes"),
        ({"k": "not base64!"}, "'k' is not 32 bytes"),
        ({"k": "env:NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
        ("env:NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE is not set"),
        ("s3cr3t", "env:NAME"),
    ],
)
def test_keys_that_are_none(keys, said):
    """Told when the cipher is made; no key is repeated in the error."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        aes_gcm(keys)

    assert "s3cr3t" not in str(caught.value)


def test_a_variable_without_ids(monkeypatch):
    """A bare key has no id: the error says the form, and not the key."""
    monkeypatch.setenv("BARE", text_of(KEYS["new"]))

    with pytest.raises(ConfigurationError, match="id:key") as caught:
        aes_gcm("env:BARE")

    assert text_of(KEYS["new"]) not in str(caught.value)


@pytest.mark.parametrize("value", ["aes:env:X", "aes-gcm:KEY", 7, b"key"])
def test_settings_that_are_no_cipher(value):
    """An error that does not show what was given: it may be a key."""
    with pytest.raises(ConfigurationError, match="cipher") as caught:
        resolve({"cipher": value}, lambda name: None)

    assert "KEY" not in str(caught.value)


def test_a_cipher_shows_no_key():
    """Its repr, in logs and tracebacks, names the ids."""
    cipher = aes_gcm(KEYS)

    assert repr(cipher) == "<AesGcm with new, old>"
    assert isinstance(cipher, Cipher)
    assert from_setting(cipher) is cipher
