"""A device's key and certificate change in one step, whatever ends the process."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from edgekit.fleet.authority import Authority
from edgekit.fleet.enrolment import sign_request
from edgekit_contracts.enrolment import Grant
from edgekit_contracts.errors import EnrolmentRefused, MissingFile, StorageFault, UsageError
from edgekit_runtime.identity import Identity, signing_request
from edgekit_runtime.tls import client_context


class Killed(BaseException):
    """The process has ended here."""


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    with Authority.create(tmp_path / "authority") as made:
        yield made


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity(tmp_path / "own" / "identity.pem", tmp_path / "own" / "ca.pem")


def granted(authority: Authority, identity: Identity, name: str = "dev-1") -> Grant:
    return sign_request(authority, signing_request(identity.next_key(), name), name)[1]


def kill_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Ends the process at the n-th call that changes a file or makes a change last."""
    calls = count()

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*values: Any, **named: Any) -> Any:
            if next(calls) == step:
                raise Killed
            return real(*values, **named)

        return call

    for place, name in ((os, "open"), (os, "fsync"), (Path, "replace"), (Path, "unlink")):
        patch.setattr(place, name, dying(getattr(place, name)))


def test_a_device_that_is_killed_while_it_renews_has_the_old_identity_or_the_new_one(
    authority: Authority, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = identity.install(granted(authority, identity), "dev-1")
    seen = set[x509.Certificate]()
    step, new = 0, old
    for step in count():
        grant = granted(authority, identity)
        new = x509.load_pem_x509_certificate(grant.certificate.encode())
        try:
            with monkeypatch.context() as patch:
                kill_at(step, patch)
                identity.install(grant, "dev-1")
        except Killed:
            client_context(identity.ca, identity.path)  # key and certificate belong together
            found = identity.certificate()
            assert found in {old, new}
            assert identity.path.stat().st_mode & 0o077 == 0
            seen.add(found)
            old = found
            authority.revoke("dev-1")  # of one name there are so many
            continue
        break
    assert step > 8
    assert len(seen) >= 2
    assert identity.certificate() == new


def test_a_key_that_waits_is_used_again(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    first = identity.next_key()
    assert identity.next_key().private_numbers() == first.private_numbers()
    (waiting,) = identity.path.parent.glob("*.next")
    assert waiting.stat().st_mode & 0o777 == 0o600
    waiting.write_text("half a key")
    with pytest.raises(StorageFault, match=r"identity\.pem\.next"):
        identity.next_key()


def test_what_is_granted_must_be_what_was_asked_for(authority: Authority, identity: Identity, tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        identity.certificate()
    good = granted(authority, identity)
    with Authority.create(tmp_path / "rogue") as rogue:
        theirs = granted(rogue, identity)
    other = Identity(tmp_path / "other.pem", tmp_path / "ca.pem")
    for wrong, name, words in (
        (granted(authority, other), "dev-1", "not of this device's key"),
        (good, "dev-2", "is of 'dev-1', and this device is 'dev-2'"),
        (Grant(certificate=good.certificate, authority=theirs.authority), "dev-1", "not of the authority beside it"),
        (Grant(certificate="", authority=good.authority), "dev-1", "holds no certificate"),
    ):
        with pytest.raises(EnrolmentRefused, match=words):
            identity.install(wrong, name)
    assert not identity.path.exists()
    identity.install(good, "dev-1")
    # From now on the authority is known.
    with Authority(tmp_path / "rogue") as rogue, pytest.raises(EnrolmentRefused, match="of another authority"):
        identity.install(granted(rogue, identity), "dev-1")


def test_an_authority_that_is_cut_off_while_it_is_made_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = 0
    for step in count():
        folder = tmp_path / str(step)
        try:
            with monkeypatch.context() as patch:
                kill_at(step, patch)
                Authority.create(folder).close()
        except Killed:
            try:
                made = Authority(folder)
            except UsageError:
                made = Authority.create(folder)
            with made:
                assert ssl.create_default_context(cadata=made.pem.decode()).get_ca_certs()
                assert made.crl_path.exists()
            continue
        break
    assert step > 8
