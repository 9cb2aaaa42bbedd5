from __future__ import annotations

import subprocess
import sys


def said_by(code: str) -> str:
    """What a fresh Python prints; warnings are errors in it."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_numpy_computes_as_ever_and_its_types_are_there_for_who_asks() -> None:
    code = """
import sys
from edgekit_runtime.lean import import_numpy
import_numpy()
import numpy as np
assert not {"numpy._typing", "numpy._core._add_newdocs"} & set(sys.modules)
assert np.linalg.eigh(np.eye(2)).eigenvalues.tolist() == [1.0, 1.0]
from numpy.typing import NDArray
assert NDArray[np.float64] != list[np.float64]
import numpy._typing
print(numpy._typing.NDArray is NDArray)
"""
    assert said_by(code) == "True"


def test_openssl_is_left_out_where_nothing_speaks_tls_and_is_there_for_who_asks() -> None:
    code = """
import sys
from edgekit_runtime.lean import import_hashlib, import_paho
import_hashlib()
import_paho(tls=False)
import hashlib, hmac, secrets
assert not {"ssl", "_ssl", "_hashlib", "urllib.request", "http.client"} & set(sys.modules)
assert hashlib.sha256(b"abc").hexdigest()[:8] == "ba7816bf" and hmac.new(b"k", b"m", "sha256").digest()
import ssl, urllib.request
print(ssl.create_default_context().check_hostname, urllib.request.Request("http://h/").host)
"""
    assert said_by(code) == "True h"


def test_what_is_loaded_already_stays_as_it_is() -> None:
    code = """
import ssl, urllib.request
from edgekit_runtime.lean import import_paho
import_paho(tls=False)
import paho.mqtt.client
print(paho.mqtt.client.ssl is ssl, hasattr(urllib.request, "getproxies"))
"""
    assert said_by(code) == "True True"
