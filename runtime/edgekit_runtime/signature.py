"""Who signed a bundle: OpenSSF Model Signing v1.0 with an EC P-256 key, checked.

`model.sig` is a Sigstore bundle around a DSSE envelope around an in-toto statement that lists every file of the
bundle with its SHA-256. cryptography checks the curve; here stands the policy: which key, which files, nothing
unlisted. The same file verifies with `model_signing verify key` on the unpacked bundle
(a test does).

cryptography is imported where it is asked: it takes 8 MiB and 15 ms, and a service has it asked by another process
(`vouching`).

Sources: OpenSSF Model Signing specification v1.0, sections 4 and 5; DSSE v1.0; in-toto Statement v1.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_json
from edgekit_contracts.errors import EdgekitError, MissingFile, SignatureRefused, UsageError
from edgekit_contracts.manifest import SIGNATURE_PATH
from edgekit_runtime.digests import sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

BUNDLE_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://model_signing/signature/v1.0"


class PublicKey(msgspec.Struct, frozen=True):
    """A key that is trusted here."""

    pem: bytes
    hint: str
    """SHA-256 of the PEM text: what the signature names its key by."""

    @classmethod
    def from_crypto(cls, key: ec.EllipticCurvePublicKey) -> PublicKey:
        """The key in its canonical PEM text."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return cls(pem, hashlib.sha256(pem).hexdigest())


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One signed file."""

    name: str
    algorithm: str
    digest: str


class Predicate(msgspec.Struct, frozen=True, kw_only=True):
    """How the files were read, and what they hash to."""

    serialization: dict[str, Any]
    resources: tuple[Resource, ...]


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The bundle as a whole: the SHA-256 of its files' digests in order."""

    name: str
    digest: dict[str, str]


class Statement(msgspec.Struct, frozen=True, kw_only=True, rename={"type": "_type", "predicate_type": "predicateType"}):
    """The in-toto statement that is signed."""

    type: str = STATEMENT_TYPE
    subject: tuple[Subject, ...]
    predicate_type: str = PREDICATE_TYPE
    predicate: Predicate


class _Signature(msgspec.Struct):
    sig: str


class _Envelope(msgspec.Struct, rename="camel"):
    payload: str
    payload_type: str
    signatures: list[_Signature]


class _PublicKeyHint(msgspec.Struct):
    hint: str


class _Material(msgspec.Struct, rename="camel"):
    public_key: _PublicKeyHint


class _SignatureFile(msgspec.Struct, rename="camel"):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


def digests_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """Path -> SHA-256 in hexadecimal of each file but the signature itself."""
    return {path: sha256(files[path]).hexdigest() for path in sorted(files) if path != SIGNATURE_PATH}


def statement_for(digests: Mapping[str, str], *, name: str) -> Statement:
    """The statement that a signature must carry of files with these digests."""
    root = hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in digests.values())).hexdigest()
    return Statement(
        subject=(Subject(name=name, digest={"sha256": root}),),
        predicate=Predicate(
            serialization={
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE_PATH],
            },
            resources=tuple(Resource(name=path, algorithm="sha256", digest=digest) for path, digest in digests.items()),
        ),
    )


def load_public_keys(paths: Sequence[str | Path]) -> tuple[PublicKey, ...]:
    """Reads PEM files.

    Raises:
        MissingFile: A file cannot be read.
        UsageError: A file holds no EC P-256 public key.
    """
    return tuple(_load_public_key(Path(path)) for path in paths)


def check_signature(
    signature: bytes | None, digests: Mapping[str, str], keys: Sequence[PublicKey], *, bundle: str
) -> PublicKey:
    """Checks that one of `keys` signed exactly these files.

    Args:
        signature: `model.sig`; None where the bundle has none.
        digests: Of every other file of the bundle, as `digests_of` gives them.
        keys: Keys that are trusted.
        bundle: The bundle's name, for errors.

    Returns:
        The key that signed.

    Raises:
        SignatureRefused: No signature, another key, or other files than those signed.
    """
    if signature is None:
        raise SignatureRefused(bundle, "it is not signed")
    try:
        document = decode_json(signature, _SignatureFile, what="signature", limit=limits.SIGNATURE_MAX_BYTES)
    except EdgekitError as error:
        raise SignatureRefused(bundle, error.sentence) from error
    if document.media_type != BUNDLE_MEDIA_TYPE:
        raise SignatureRefused(bundle, f"it is of type {document.media_type[:80]!r}")
    hint = document.verification_material.public_key.hint
    key = next((key for key in keys if key.hint == hint), None)
    if key is None:
        trusted = ", ".join(key.hint[:12] for key in keys) or "none"
        raise SignatureRefused(
            bundle, f"it is signed by key {hint[:12]}, which is not trusted here (trusted: {trusted})"
        )

    payload = _verified_payload(document.dsse_envelope, key, bundle)
    try:
        signed = decode_json(payload, Statement, what="signed statement", limit=limits.SIGNATURE_MAX_BYTES)
    except EdgekitError as error:
        raise SignatureRefused(bundle, error.sentence) from error
    if (signed.type, signed.predicate_type) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise SignatureRefused(bundle, f"its statement is of type {signed.predicate_type[:80]}")
    # No ignore list is honoured: what is not signed does not exist.
    if signed.predicate.resources != statement_for(digests, name="").predicate.resources:
        raise SignatureRefused(bundle, "its files are not those that were signed")
    return key


def encoded(payload: bytes) -> bytes:
    """The bytes that a signature of an in-toto payload signs.

    Source: DSSE v1.0, protocol.md, "Signature Definition": PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body)
    SP body.
    """
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _verified_payload(envelope: _Envelope, key: PublicKey, bundle: str) -> bytes:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if envelope.payload_type != PAYLOAD_TYPE or len(envelope.signatures) != 1:
        raise SignatureRefused(bundle, "its envelope is not an in-toto statement with one signature")
    payload = _canonical(envelope.payload, bundle)
    signature = _canonical(envelope.signatures[0].sig, bundle)
    public = load_pem_public_key(key.pem)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    try:
        public.verify(signature, encoded(payload), ec.ECDSA(SHA256()))
    except InvalidSignature as error:
        raise SignatureRefused(bundle, "the signature does not belong to its content") from error
    return payload


def _canonical(text: str, bundle: str) -> bytes:
    # One signature must have one spelling.
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if base64.b64encode(data).decode() != text:
        raise SignatureRefused(bundle, "its envelope is not in canonical base64")
    return data


def _load_public_key(path: Path) -> PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingFile("public key", str(path), error.strerror or str(error)) from error
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UsageError(
            f"{path} holds no EC P-256 public key in PEM", "give the .pub.pem file of 'edgekit keys create'"
        )
    return PublicKey.from_crypto(key)
