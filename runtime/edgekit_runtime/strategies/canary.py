"""Which requests a canary answers: a stable share, by a key or by the request itself.

A key and a salt are hashed to a point in [0, 1); the canary answers those below its share. So one key (a machine, a
patient) is answered by one bundle for as long as the share stays, a larger share only adds keys, and another salt draws
other keys. It draws nothing and remembers nothing.
"""

from __future__ import annotations

import hashlib


def point(key: bytes, salt: bytes) -> float:
    """Where a key lies in [0, 1): 53 bits of BLAKE2b, keyed with at most 64 bytes of salt.

    Source: RFC 7693.
    """
    digest = hashlib.blake2b(key, digest_size=8, key=salt).digest()
    # As many bits as a double holds exactly, so that no key comes out as 1.
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def is_chosen(key: bytes, salt: bytes, share: float) -> bool:
    """Whether the canary answers this key.

    Args:
        key: What the request is about, or its bytes.
        salt: Of this trial.
        share: Of the keys, 0 to 1.
    """
    return point(key, salt) < share
