"""Keys and signatures: EC P-256, OpenSSF Model Signing v1.0 (see edgekit_runtime.signature, which checks them).

Signatures are deterministic (RFC 6979), so that the same inputs and the same key give the same bundle.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edgekit_contracts.errors import MissingFile, StorageFault, UsageError
from edgekit_runtime.signature import (
    BUNDLE_MEDIA_TYPE,
    PAYLOAD_TYPE,
    PublicKey,
    digests_of,
    encoded,
    statement_for,
)
from edgekit_runtime.trust import PUBLIC_NAME

PRIVATE_NAME: Final = "edgekit.pem"


class SigningKey:
    """A private key that signs bundles."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey.from_crypto(key.public_key())

    @classmethod
    def create(cls, directory: Path) -> SigningKey:
        """Makes a key pair in `directory`: edgekit.pem (readable by its owner only) and edgekit.pub.pem.

        Raises:
            UsageError: A key is there already.
            StorageFault: The directory cannot be written.
        """
        key = cls(ec.generate_private_key(ec.SECP256R1()))
        private, public = directory / PRIVATE_NAME, directory / PUBLIC_NAME
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFault(str(directory), error.strerror or str(error)) from error
        try:
            file = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise UsageError(f"there is a key at {private} already", "use it, or name another directory") from error
        except OSError as error:
            raise StorageFault(str(directory), error.strerror or str(error)) from error
        try:
            with open(file, "wb") as opened:
                opened.write(key._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            public.write_bytes(key.public.pem)
        except OSError as error:
            # Half a pair would stand in the way of the next one.
            private.unlink(missing_ok=True)
            public.unlink(missing_ok=True)
            raise StorageFault(str(directory), error.strerror or str(error)) from error
        return key

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Reads a private key in PEM.

        Raises:
            MissingFile: It cannot be read.
            UsageError: It is no EC P-256 private key, or has a password.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise MissingFile("signing key", str(path), error.strerror or str(error)) from error
        try:
            key = load_pem_private_key(data, password=None)
        except (TypeError, ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise UsageError(
                f"{path} holds no EC P-256 private key in PEM without password", "make one: edgekit keys create"
            )
        return cls(key)

    def sign(self, files: Mapping[str, bytes], *, name: str) -> bytes:
        """The content of `model.sig` for these files."""
        payload = msgspec.json.encode(statement_for(digests_of(files), name=name))
        signature = self._key.sign(encoded(payload), ec.ECDSA(SHA256(), deterministic_signing=True))
        return msgspec.json.encode(
            {
                "mediaType": BUNDLE_MEDIA_TYPE,
                "verificationMaterial": {"publicKey": {"hint": self.public.hint}, "tlogEntries": []},
                "dsseEnvelope": {
                    "payload": base64.b64encode(payload).decode(),
                    "payloadType": PAYLOAD_TYPE,
                    # DSSE's keyid is an unauthenticated hint, and empty in this format.
                    "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
                },
            }
        )
