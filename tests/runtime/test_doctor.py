from __future__ import annotations

import dataclasses
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgekit_contracts.errors import EdgekitError
from edgekit_contracts.manifest import Budget, Manifest
from edgekit_runtime.config import DeviceConfig, Serve, Telemetry
from edgekit_runtime.doctor import Finding, Machine, examine, exit_code
from edgekit_runtime.doctor.clock import clock
from edgekit_runtime.doctor.credentials import public_keys, tls
from edgekit_runtime.doctor.hardware import heat, processor
from edgekit_runtime.doctor.machine import kernel_keeps_time
from edgekit_runtime.doctor.memory import memory, processor_limit, swap
from edgekit_runtime.doctor.network import broker, port
from edgekit_runtime.doctor.software import bundles as in_a_child
from edgekit_runtime.doctor.software import onnxruntime, proof
from edgekit_runtime.doctor.storage import disk, lock, permissions
from edgekit_runtime.lock import hold
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.serving.server import bind
from tests import bundles
from tests.brokers import Mosquitto, free_port
from tests.certificates import Authority

NOW = 1_790_000_000.0
"""In 2026."""
PI4 = "fp asimd evtstrm crc32 cpuid"
PI5 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    return root


def tree(root: Path, **files: str) -> None:
    """Files below a root; `__` in a name stands for a slash."""
    for name, text in files.items():
        put(root, name.replace("__", "/"), text)


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def machine(root: Path, **changes: Any) -> Machine:
    seam = Machine(root=root, architecture="aarch64", pointer_bits=64, now=lambda: NOW, keeps_time=lambda: False)
    return dataclasses.replace(seam, **changes)


def config(tmp_path: Path, **changes: Any) -> DeviceConfig:
    whole = DeviceConfig(device="dev-1", bundle=str(tmp_path / "b"), keys=("k",), state_dir=str(tmp_path / "state"))
    return msgspec.structs.replace(whole, **changes)


def only(findings: Iterator[Finding]) -> Finding:
    (found,) = findings
    return found


# --- clock ------------------------------------------------------------------------------------------------------------


def test_a_clock_that_was_never_set_fails(board: Path) -> None:
    found = only(clock(machine(board, now=lambda: 3600.0, keeps_time=lambda: True)))
    assert found.verdict == "FAIL"
    assert "1970-01-01 01:00:00" in found.sentence
    assert "timedatectl" in found.next_step


@pytest.mark.parametrize(("kernel", "verdict"), [(True, "ok"), (False, "warn"), (None, "warn")])
def test_the_kernel_says_whether_the_clock_is_kept_right(board: Path, kernel: bool | None, verdict: str) -> None:
    assert only(clock(machine(board, keeps_time=lambda: kernel))).verdict == verdict


def test_timesyncd_says_it_too(board: Path) -> None:
    tree(board, run__systemd__timesync__synchronized="")
    assert "timesyncd" in only(clock(machine(board))).sentence


def test_this_kernel_can_be_asked() -> None:
    assert kernel_keeps_time() in {True, False, None}


# --- processor, heat --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("features", "slow"), [(PI4, True), (PI5, False)])
def test_the_processor_s_features_are_named(board: Path, features: str, slow: bool) -> None:
    put(board, "proc/cpuinfo", f"processor\t: 0\nBogoMIPS\t: 108\nFeatures\t: {features}\n\nprocessor\t: 1\n")
    found = only(processor(machine(board)))
    assert found.verdict == "ok"
    assert ("without asimddp" in found.sentence) is slow
    assert "asimd" in found.sentence


@pytest.mark.parametrize(("architecture", "bits"), [("armv7l", 32), ("aarch64", 32), ("riscv64", 64)])
def test_a_processor_without_a_wheel_fails(board: Path, architecture: str, bits: int) -> None:
    found = only(processor(machine(board, architecture=architecture, pointer_bits=bits)))
    assert found.verdict == "FAIL"
    assert f"no wheel for {architecture} with {bits}-bit programs" in found.sentence


def test_a_cool_board_is_well(board: Path) -> None:
    zone = "sys/class/thermal/thermal_zone0"
    for name, text in {"temp": "45123", "type": "cpu-thermal", "trip_point_0_type": "critical"}.items():
        put(board, f"{zone}/{name}", text + "\n")
    put(board, f"{zone}/trip_point_0_temp", "110000")
    put(board, "sys/class/thermal/cooling_device0/type", "pwm-fan")
    put(board, "sys/class/thermal/cooling_device0/cur_state", "3")
    put(board, "sys/devices/platform/soc/soc:firmware/get_throttled", "0")
    found = only(heat(machine(board)))
    assert (found.verdict, found.sentence) == ("ok", "45 C at most (cpu-thermal), nothing is slowed down")
    for name, text in {"temp": "45123", "type": "cpu-thermal"}.items():  # another of the same name, without limits
        put(board, f"sys/class/thermal/thermal_zone1/{name}", text)
    assert only(heat(machine(board))).verdict == "ok"
    put(board, f"{zone}/temp", "107000")
    found = only(heat(machine(board)))
    assert (found.verdict, found.sentence) == ("warn", "cpu-thermal has 107 C, and is slowed down at 110 C")


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        ("50005", ["the supply's voltage is too low now", "the processor is throttled now"]),
        ("50000", ["the supply's voltage was too low at some time", "the processor was throttled at some time"]),
        ("8", ["the soft limit of the temperature is reached now"]),
    ],
)
def test_the_firmware_of_a_raspberry_pi_is_heard(board: Path, bits: str, words: list[str]) -> None:
    put(board, "sys/devices/platform/soc/soc:firmware/get_throttled", bits + "\n")
    found = only(heat(machine(board)))
    assert found.verdict == "warn"
    for one in words:
        assert one in found.sentence


def test_a_processor_that_the_kernel_slows_down_is_named(board: Path) -> None:
    for name, text in {"type": "thermal-cpufreq-0", "cur_state": "2", "max_state": "4"}.items():
        put(board, f"sys/class/thermal/cooling_device0/{name}", text)
    assert "thermal-cpufreq-0: step 2 of 4" in only(heat(machine(board))).sentence


# --- memory, limits, swap -------------------------------------------------------------------------------------------


def needing(megabytes: float) -> list[Manifest]:
    budget = Budget(
        profile="p",
        latency_ms=1,
        latency_ms_low=1,
        latency_ms_high=1,
        latency_limit_ms=1,
        memory_mb=megabytes,
        memory_limit_mb=1,
        bundle_mb=1,
        bundle_limit_mb=1,
        fits=True,
    )
    return [bundles.manifest(budgets=(budget,))]


def test_memory_is_compared_with_the_bundle_s_budget(board: Path) -> None:
    put(board, "proc/meminfo", "MemTotal: 900000 kB\nMemAvailable:   195313 kB\n")
    assert only(memory(machine(board), needing(150))).verdict == "ok"
    found = only(memory(machine(board), needing(400)))
    assert (found.verdict, found.sentence) == ("warn", "200 MB are free, and tiny 1.0: predicted to take 400 MB")


@pytest.mark.parametrize(("limit", "verdict"), [("50000000", "FAIL"), ("100000000", "warn"), ("300000000", "ok")])
def test_the_narrowest_limit_of_the_control_groups_counts(board: Path, limit: str, verdict: str) -> None:
    put(board, "proc/meminfo", "MemAvailable: 1000000 kB\n")
    put(board, "proc/self/cgroup", "0::/system.slice/edgekit.service\n")
    put(board, "sys/fs/cgroup/system.slice/memory.max", limit)
    put(board, "sys/fs/cgroup/system.slice/edgekit.service/memory.max", "max")
    found = {one.check: one for one in memory(machine(board), [])}
    assert found["memory limit"].verdict == verdict


def test_no_limit_of_the_old_control_groups_is_no_limit(board: Path) -> None:
    put(board, "proc/meminfo", "MemAvailable: 1000000 kB\n")
    put(board, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    assert [one.check for one in memory(machine(board), [])] == ["memory"]


def test_a_ration_of_processor_time_is_named(board: Path) -> None:
    put(board, "proc/self/cgroup", "0::/box\n")
    put(board, "sys/fs/cgroup/box/cpu.max", "25000 100000")
    found = only(processor_limit(machine(board)))
    assert (found.verdict, found.sentence) == (
        "warn",
        "the control group gives 25% of a core: an answer may wait 100 ms",
    )
    put(board, "sys/fs/cgroup/box/cpu.max", "max 100000")
    assert not list(processor_limit(machine(board)))


@pytest.mark.parametrize(
    ("place", "verdict"), [("/var/swap", "warn"), ("/dev/mmcblk0p3", "warn"), ("/dev/zram0", "ok"), ("/mnt/swap", "ok")]
)
def test_swap_on_a_card_is_named(board: Path, place: str, verdict: str) -> None:
    put(board, "proc/swaps", f"Filename Type Size Used Priority\n{place} file 102396 0 -2\n")
    put(board, "proc/mounts", "/dev/mmcblk0p2 / ext4 rw 0 0\n/dev/sda1 /mnt ext4 rw 0 0\n")
    found = only(swap(machine(board)))
    assert found.verdict == verdict
    assert place in found.sentence


# --- disk, permissions, lock ----------------------------------------------------------------------------------------


def volume(**changes: int) -> Callable[[Path], os.statvfs_result]:
    fields = {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 10**6, "f_bfree": 10**6, "f_bavail": 10**6}
    fields |= {"f_files": 10**6, "f_ffree": 10**6, "f_favail": 10**6, "f_flag": 0, "f_namemax": 255} | changes
    return lambda _: os.statvfs_result(tuple(fields.values()))


@pytest.mark.parametrize(
    ("found", "mount", "verdict", "words"),
    [
        (volume(), "ext4", "ok", "4,096 MB free"),
        (volume(f_bavail=5000), "ext4", "FAIL", "20 MB free"),
        (volume(f_bavail=20_000), "ext4", "warn", "the outbox may take 64"),
        (volume(f_favail=3), "ext4", "FAIL", "3 files can still be made"),
        (volume(f_files=0, f_favail=0), "btrfs", "ok", "MB free"),  # makes its inodes as it needs them
        (volume(f_flag=os.ST_RDONLY), "ext4", "FAIL", "mounted read-only"),
        (volume(), "nfs4", "FAIL", "SQLite's locks"),
        (volume(), "tmpfs", "warn", "lost with the power"),
    ],
)
def test_the_disk_is_looked_at(board: Path, tmp_path: Path, found: Any, mount: str, verdict: str, words: str) -> None:
    put(board, "proc/mounts", f"/dev/x / {mount} rw 0 0\n")
    settings = config(tmp_path, telemetry=Telemetry(broker="mqtt://b"))
    result = only(disk(machine(board, statvfs=found), settings))
    assert result.verdict == verdict
    assert words in result.sentence


def test_an_outbox_without_room_for_deleting_is_named(board: Path, tmp_path: Path) -> None:
    put(board, "proc/mounts", "/dev/x / ext4 rw 0 0\n")
    settings = config(tmp_path, telemetry=Telemetry(broker="mqtt://b"))
    with Outbox(Path(settings.state_dir) / "outbox.db", settings.device) as outbox:
        assert only(disk(machine(board, statvfs=volume()), settings)).verdict == "ok"
        assert outbox.ballast.throw_off()
    found = only(disk(machine(board, statvfs=volume()), settings))
    assert (found.verdict, "the disk was full" in found.sentence) == ("warn", True)


def test_what_anybody_can_write_is_named(tmp_path: Path) -> None:
    settings = config(tmp_path, keys=(str(tmp_path / "key.pem"),))
    (tmp_path / "key.pem").touch()
    assert only(permissions(settings)).verdict == "ok"
    (tmp_path / "key.pem").chmod(0o666)
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    found = only(permissions(settings))
    assert found.verdict == "FAIL"
    assert f"anybody can write {tmp_path / 'key.pem'}" in found.sentence
    assert f"anybody can write into state_dir {tmp_path / 'state'}" in found.sentence
    assert found.next_step == "chmod o-w it"


def test_what_the_service_cannot_write_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    found = only(permissions(config(tmp_path, state_dir=str(tmp_path / "taken"))))
    assert (found.verdict, found.next_step) == ("FAIL", "give it to this user (chown)")


def test_who_holds_the_state_is_named(tmp_path: Path) -> None:
    settings = config(tmp_path)
    assert "nobody holds" in only(lock(settings)).sentence
    with hold(tmp_path / "state") as held:
        held.tell(["http://127.0.0.1:8080"])
        found = only(lock(settings))
    assert f"process {os.getpid()} holds" in found.sentence
    assert "answers at http://127.0.0.1:8080" in found.sentence
    assert "nobody holds" in only(lock(settings)).sentence


# --- keys and certificates ------------------------------------------------------------------------------------------


def test_certificates_keys_and_secrets_are_looked_at(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    cert, key = authority.issue("dev-1")
    other, _ = authority.issue("dev-2")
    password = tmp_path / "password"
    password.write_text("x")
    for secret in (key, password):
        secret.chmod(0o600)
    seam = Machine()
    telemetry = Telemetry(
        broker="mqtts://b", ca=str(authority.path), cert=str(cert), key=str(key), password_file=str(password)
    )
    verdicts = {one.check: one.verdict for one in tls(seam, telemetry)}
    assert verdicts == {"ca": "ok", "cert": "ok", "key": "ok", "password": "ok"}
    # They live for an hour before now, and an hour after: this is the last third.
    soon = {one.check: one for one in tls(dataclasses.replace(seam, now=lambda: time.time() + 1_800), telemetry)}
    assert soon["cert"].verdict == "warn"
    assert "enrol --renew" in soon["cert"].next_step

    late = {one.check: one for one in tls(dataclasses.replace(seam, now=lambda: time.time() + 86_400), telemetry)}
    assert late["cert"].verdict == "FAIL"
    assert "CN=dev-1 expired on" in late["cert"].sentence
    early = {one.check: one for one in tls(dataclasses.replace(seam, now=lambda: 0.0), telemetry)}
    assert "is valid only from" in early["ca"].sentence

    swapped = {one.check: one for one in tls(seam, msgspec.structs.replace(telemetry, cert=str(other)))}
    assert "is not the key of" in swapped["key"].sentence
    for secret in (key, password):
        secret.chmod(0o644)
    read = {one.check: one for one in tls(seam, telemetry)}
    assert "anybody can read" in read["key"].sentence
    assert "anybody can read" in read["password"].sentence
    assert "chmod 600" in read["password"].next_step


def test_key_and_certificate_in_one_file_are_a_secret(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    cert, key = authority.issue("dev-1")
    both = tmp_path / "identity.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    both.chmod(0o600)
    telemetry = Telemetry(broker="mqtts://b", ca=str(authority.path), cert=str(both), key=str(both))
    assert {one.check: one.verdict for one in tls(Machine(), telemetry)} == {"ca": "ok", "cert": "ok", "key": "ok"}
    both.chmod(0o644)
    found = {one.check: one for one in tls(Machine(), telemetry)}
    assert "anybody can read" in found["key"].sentence


def test_files_that_are_missing_or_something_else_are_named(tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("no certificate")
    telemetry = Telemetry(broker="mqtts://b", ca=str(tmp_path / "gone"), cert=str(tmp_path / "junk"))
    found = {one.check: one for one in tls(Machine(), telemetry)}
    assert "No such file or directory" in found["ca"].sentence
    assert "is not what it should be" in found["cert"].sentence


def test_trusted_keys_that_cannot_be_read_fail(tmp_path: Path) -> None:
    found = only(public_keys(config(tmp_path, keys=(str(tmp_path / "gone.pem"),))))
    assert (found.verdict, found.exit_code) == ("FAIL", 3)


# --- network ----------------------------------------------------------------------------------------------------------


def test_a_port_that_another_program_holds_is_named_with_it(tmp_path: Path) -> None:
    settings = config(tmp_path, serve=Serve(port=free_port()))
    assert only(port(Machine(), settings)).sentence.endswith("is free")
    with socket.create_server(("127.0.0.1", settings.serve.port)) as server:
        # It takes the connection and says nothing of ours.
        thread = threading.Thread(target=lambda: server.accept()[0].close(), daemon=True)
        thread.start()
        found = only(port(Machine(), settings))
        thread.join(10)
    assert found.verdict == "FAIL"
    assert found.sentence.startswith(f"http://127.0.0.1:{settings.serve.port} is held by")
    assert found.next_step == "stop it, or set serve.port"


def test_the_owner_of_a_port_is_found_in_the_kernel_s_tables(board: Path) -> None:
    from edgekit_runtime.doctor.network import _owner

    put(
        board,
        "proc/net/tcp",
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000 100\n",
    )
    put(board, "proc/77/comm", "nginx\n")
    (board / "proc/77/fd").mkdir()
    (board / "proc/77/fd/5").symlink_to("socket:[4711]")
    assert _owner(machine(board), 0x1F90) == "process 77 (nginx)"
    assert _owner(machine(board), 80) == "another process"


def test_an_address_that_is_not_this_machine_s_fails(tmp_path: Path) -> None:
    found = only(port(Machine(), config(tmp_path, serve=Serve(host="192.0.2.1"))))
    assert "cannot listen on 192.0.2.1:8080: Cannot assign requested address" in found.sentence
    assert found.next_step.startswith("name an address of this machine")
    found = only(port(Machine(), config(tmp_path, serve=Serve(host="no.invalid"))))
    assert found.next_step.startswith("name an address of this machine")


@pytest.mark.parametrize(
    ("serve", "sentence"),
    [
        (Serve(port="off", socket="/tmp/" + 103 * "s"), "the path of a socket has at most 107 bytes"),
        (Serve(port="off"), "neither a port nor a socket"),
    ],
)
def test_where_nobody_could_ask_it_fails_as_the_service_would(serve: Serve, sentence: str, tmp_path: Path) -> None:
    found = only(port(Machine(), config(tmp_path, serve=serve)))
    assert (found.verdict, sentence in found.sentence) == ("FAIL", True)
    with pytest.raises(EdgekitError):
        bind(serve)


def test_each_step_to_the_broker_is_named(stopped_mosquitto: Mosquitto, tmp_path: Path) -> None:
    there = stopped_mosquitto.broker
    assert "no TCP connection: Connection refused" in only(broker(there)).sentence
    assert "its name has no address" in only(broker(dataclasses.replace(there, host="no.invalid"))).sentence
    stopped_mosquitto.start()
    assert only(broker(there)).verdict == "ok"
    assert "the TLS handshake fails" in only(broker(dataclasses.replace(there, tls=True))).sentence


def test_one_place_of_a_cluster_that_fails_is_a_warning_while_another_lets_us_in(mosquitto: Mosquitto) -> None:
    cluster = dataclasses.replace(mosquitto.broker, others=(("127.0.0.1", free_port()),))
    assert [one.verdict for one in broker(cluster)] == ["ok", "warn"]
    assert [one.verdict for one in broker(cluster.places[1])] == ["FAIL"]


def test_a_broker_that_lets_nobody_in_says_so(tmp_path: Path) -> None:
    closed = Mosquitto(tmp_path, anonymous=False)
    closed.start()
    try:
        found = only(broker(closed.broker))
    finally:
        closed.stop()
    assert "Not authorized" in found.sentence
    assert "telemetry.username" in found.next_step


def test_a_broker_s_certificate_that_is_not_trusted_is_named(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    cert, key = theirs.issue("broker")
    server = Mosquitto(tmp_path, f"cafile {theirs.path}\ncertfile {cert}\nkeyfile {key}\n")
    server.start()
    try:
        tls_broker = dataclasses.replace(server.broker, tls=True, ca=theirs.path)
        assert only(broker(tls_broker)).verdict == "ok"
        found = only(broker(dataclasses.replace(tls_broker, ca=ours.path)))
        lacking = only(broker(dataclasses.replace(tls_broker, ca=tmp_path / "gone.pem")))
    finally:
        server.stop()
    assert "its certificate is refused: " in found.sentence
    assert "gone.pem: No such file or directory" in lacking.sentence


# --- software ---------------------------------------------------------------------------------------------------------


def test_onnxruntime_and_the_bundle_are_tried_in_a_child(tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    assert only(onnxruntime()).verdict == "ok"
    settings = config(tmp_path, bundle=str(made.path), keys=(str(made.public),))
    assert only(in_a_child(settings)).sentence.startswith("tiny 1.0, signed by key ")
    made.path.write_bytes(made.path.read_bytes()[:-3])
    found = only(in_a_child(settings))
    assert (found.verdict, found.exit_code) == ("FAIL", 1)
    assert "is damaged" in found.sentence
    assert "copy the bundle again" in found.next_step


@pytest.mark.parametrize(
    ("release", "proved", "verdict"),
    [("1.19.2", (), "warn"), ("1.19.2", ("1.19.2",), "ok"), ("1.20.0", (), "ok"), ("1.100.0", (), "ok")],
)
def test_an_onnxruntime_that_a_bundle_was_not_made_for_is_named(
    monkeypatch: pytest.MonkeyPatch, release: str, proved: tuple[str, ...], verdict: str
) -> None:
    monkeypatch.setattr("edgekit_runtime.probe.installed_version", lambda name: release)
    manifest = bundles.manifest()
    manifest = bundles.manifest(parity=msgspec.structs.replace(manifest.parity, runtimes=proved))
    found = only(proof([manifest]))
    assert found.verdict == verdict
    assert f"tiny 1.0 is for onnxruntime 1.20.0 or newer, and {release} is installed" in found.sentence


def test_everything_is_looked_at_and_the_code_is_that_of_the_worst(tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    settings = config(
        tmp_path,
        bundle=str(made.path),
        keys=(str(made.public),),
        serve=Serve(port=free_port(), socket=str(tmp_path / "s.sock")),
        telemetry=Telemetry(broker=f"mqtt://127.0.0.1:{free_port()}"),
    )
    found = {one.check: one for one in examine(settings)}
    checks = "python libraries processor clock memory swap heat disk permissions lock keys port socket broker"
    assert [*checks.split(), "release", "onnxruntime", "bundle"] == [
        check for check in found if not check.endswith("limit")
    ]
    assert [check for check, one in found.items() if one.verdict == "FAIL"] == ["broker"]
    assert exit_code(list(found.values())) == 3
    refused = Finding("bundle", "FAIL", "refused", "", 1)
    assert exit_code([refused]) == 1
    assert exit_code([refused, found["broker"]]) == 3
    assert exit_code([found["clock"]]) == 0


def test_the_doctor_does_not_load_what_may_kill_it(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom edgekit_runtime.__main__ import main\n"
        "main(['doctor', '--config', sys.argv[1]])\nassert 'onnxruntime' not in sys.modules"
    )
    made = bundles.make(tmp_path)
    (tmp_path / "device.toml").write_text(f'bundle = "{made.path}"\nkeys = ["{made.public}"]\n[serve]\nport = 0\n')
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "device.toml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
