"""The key that a person signs with, and those that he trusts; his own lie where `trust.own_directory` says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import destination
from edgekit_contracts.errors import UsageError
from edgekit_runtime.trust import own_directory, own_key

if TYPE_CHECKING:
    from edgekit_converters.signing import SigningKey
    from edgekit_runtime.signature import PublicKey


def signing_key(path: Path | None) -> SigningKey | None:
    """The key to sign with: of the file that is named, else the user's own; None where that is yet to be made.

    Raises:
        MissingFile, UsageError: The file holds no key.
        StorageFault: There is no key of the user's own, and none can be made.
    """
    from edgekit_converters.signing import PRIVATE_NAME, SigningKey

    own = own_directory() / PRIVATE_NAME
    if path is None and not own.exists():
        destination.check(own, own.suffix)
        return None
    return SigningKey.load(path or own)


def make_own() -> SigningKey:
    """Makes the user's own key.

    Raises:
        StorageFault: It cannot be written.
    """
    from edgekit_converters.signing import SigningKey

    return SigningKey.create(own_directory())


def trusted_keys(paths: Sequence[Path]) -> tuple[PublicKey, ...]:
    """The keys to check against: the files that are named, else the user's own.

    Raises:
        MissingFile, UsageError: A file holds no key, or there is none.
    """
    from edgekit_runtime.signature import load_public_keys

    own = own_key()
    if not paths and not own.exists():
        raise UsageError("no key to check the signature with", "name the signer's public key with --key PUB.PEM")
    return load_public_keys(paths or [own])
