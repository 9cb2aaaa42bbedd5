"""The Unix socket for other languages: the page's example byte by byte, and the C example against a real service."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit_converters.signing import SigningKey
from tests import bundles
from tests.service import Service

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "corpus" / "bundle-1.0"


def corpus_service(folder: Path) -> Service:
    key = SigningKey.create(folder / "unused")
    service = Service(folder, bundles.Made(CORPUS / "progression-1.0.edge", CORPUS / "signer.pub.pem", key))
    service.start()
    return service


@pytest.fixture(scope="module")
def socket_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    service = corpus_service(tmp_path_factory.mktemp("service"))
    yield service.socket_path
    service.close()


@pytest.fixture(scope="module")
def infer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C example, built with every warning an error."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        reason = "no C compiler is installed (apt install gcc libc6-dev)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    program = tmp_path_factory.mktemp("c") / "infer"
    source = ROOT / "examples" / "c" / "infer.c"
    strict = ["-Wall", "-Wextra", "-Werror", "-std=c11", "-O2"]
    built = subprocess.run([compiler, *strict, "-o", program, source], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return program


def blocks(kind: str) -> list[str]:
    page = (ROOT / "docs" / "unix-socket.md").read_text()
    return re.findall(rf"^```{kind}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def undumped(dump: str) -> bytes:
    return b"".join(bytes.fromhex(line[6:53]) for line in dump.splitlines())


def test_the_page_s_example_is_answered_as_it_says(socket_path: Path) -> None:
    asked, answered = blocks("http")
    asked_json, answered_json = (text.replace("\n", "").encode() for text in blocks("text"))
    asked_bytes, answered_bytes = map(undumped, blocks("hexdump"))
    body = asked_json + asked_bytes
    assert f"Inference-Header-Content-Length: {len(asked_json)}\nContent-Length: {len(body)}\n" in asked
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(30)
        client.connect(str(socket_path))
        client.sendall(asked.replace("\n", "\r\n").encode() + body)
        got = b""
        while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < len(answered_json) + len(answered_bytes):
            more = client.recv(65_536)
            assert more, got
            got += more
    head, _, rest = got.partition(b"\r\n\r\n")
    assert set(answered.split("\n")) - {""} <= set(head.decode().split("\r\n"))
    assert json.loads(rest[: len(answered_json)]) == json.loads(answered_json)
    tensors = rest[len(answered_json) :]
    assert tensors[:8] == answered_bytes[:8]
    # Of another processor the last digits of a probability may differ.
    expected = struct.unpack("<2d", answered_bytes[8:])
    assert struct.unpack("<2d", tensors[8:]) == pytest.approx(expected, abs=1e-7)


def test_the_c_example_prints_the_model_s_answer(infer: Path, socket_path: Path) -> None:
    numbers, texts = "numbers=59,32.1,101,157,93.2,38,4,4.8598,nan", "text=female,obese"
    done = subprocess.run(
        [infer, socket_path, "progression", numbers, texts], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    label, probabilities = done.stdout.splitlines()
    assert label == "label fast"
    name, *values = probabilities.split()
    assert name == "probabilities"
    expected = struct.unpack("<2d", undumped(blocks("hexdump")[1])[8:])
    assert list(map(float, values)) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("datatype", "tensor", "printed"),
    [
        ("BOOL", b"\x01\x00", "true false"),
        ("INT64", struct.pack("<2q", 3, -4), "3 -4"),
        ("FP32", struct.pack("<2f", 0.5, -2), "0.5 -2"),
    ],
)
def test_the_c_example_prints_labels_of_every_kind(
    infer: Path, tmp_path: Path, datatype: str, tensor: bytes, printed: str
) -> None:
    output = {"name": "label", "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": len(tensor)}}
    text = json.dumps({"model_name": "m", "outputs": [output]}, separators=(",", ":")).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(text + tensor)}\r\ninference-header-content-length: {len(text)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        asking = subprocess.Popen([infer, tmp_path / "s", "m", "numbers=1"], stdout=subprocess.PIPE, text=True)
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(head.encode() + b"\r\n\r\n" + text + tensor)
            assert asking.communicate(timeout=30)[0] == f"label {printed}\n"
    assert asking.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["other", "numbers=1"], 1, '{"error":"there is no model \'other\' here'),
        (["progression", "numbers=1,2", "text=a,b"], 1, '{"error":"'),
        (["progression", "numbers=one"], 1, "infer: a value is no number"),
        (["progression", 'num"bers=1'], 1, "infer: a name holds letters"),
        (["progression"], 2, "usage: "),
    ],
)
def test_the_c_example_says_what_is_wrong(
    infer: Path, socket_path: Path, arguments: list[str], code: int, words: str
) -> None:
    done = subprocess.run([infer, socket_path, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert words in done.stderr
    assert done.stdout == ""


def test_the_c_example_says_that_nobody_listens(infer: Path, tmp_path: Path) -> None:
    done = subprocess.run([infer, tmp_path / "none", "m", "numbers=1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "infer: no service listens there\n")
