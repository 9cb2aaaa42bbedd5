"""A Mosquitto that believes certificates: configuration, access rules, and the broker's own certificate, in one folder.

Each line says why it stands there. Tried against Mosquitto 2.0.11 (Debian 12), line by line, by
tests/e2e/test_broker_config.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from edgekit.fleet.authority import CERTIFICATE_NAME, CRL_NAME, Authority
from edgekit_contracts import limits, topics
from edgekit_contracts.errors import MissingFile, UsageError
from edgekit_contracts.names import check_device
from edgekit_runtime.identity import private_pem
from edgekit_runtime.replacing import replace

CONFIG_NAME: Final = "mosquitto.conf"
ACL_NAME: Final = "acl"
BROKER_CERTIFICATE_NAME: Final = "broker.pem"
BROKER_KEY_NAME: Final = "broker.key"

DENIED_MARK: Final = "# --- Revoked; `edgekit fleet ca publish` writes from here on. ---"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration is for."""

    hosts: tuple[str, ...]
    """Names and addresses by which clients reach the broker; in its certificate."""
    folder: str
    """Where the files will lie on the broker's machine."""
    port: int = 8883
    listen: str = ""
    """Address to listen on; all of them where it is empty."""
    collectors: tuple[str, ...] = ("collector",)
    """NAMEs of certificates `collector.NAME`, and of `edgekit collect --name NAME`."""
    apps: tuple[str, ...] = ()
    """NAMEs of certificates `app.NAME`, which may ask devices' models; none: inference over the broker is off."""
    readers: tuple[str, ...] = ()
    """NAMEs of certificates `app.NAME`, which may read what is in JSON: births, presences, scalars, alerts."""
    home_assistant: bool = False
    """Devices announce themselves to Home Assistant (`home_assistant = true`), and readers hear of it."""
    sparkplug: str | None = None
    """The Sparkplug group in which devices are edge nodes (`sparkplug = true`); readers are its hosts."""

    @property
    def one_connection(self) -> bool:
        """Whether every member has only one."""
        return not self.apps and self.sparkplug is None


def write_mosquitto(authority: Authority, out: Path, plan: Plan) -> list[Path]:
    """Writes configuration, access rules and certificates; the broker's own are new each time.

    Returns:
        The files.

    Raises:
        UnknownName: A collector's or app's name.
        UsageError: A group of Sparkplug with what is no part of a topic.
        StorageFault: A file cannot be written.
    """
    for name in (*plan.collectors, *plan.apps, *plan.readers):
        check_device(name)
    if plan.sparkplug is not None and not re.fullmatch(r"[^+/#\s]{1,64}", plan.sparkplug):
        raise UsageError(f"'{plan.sparkplug}' is no group of Sparkplug", "give it without blanks, /, + and #")
    certificate, key = out / BROKER_CERTIFICATE_NAME, out / BROKER_KEY_NAME
    replace(out / CONFIG_NAME, configuration(plan).encode())
    replace(out / CERTIFICATE_NAME, authority.pem)
    own = ec.generate_private_key(ec.SECP256R1())
    replace(key, private_pem(own), 0o600)
    replace(certificate, authority.issue_server(plan.hosts, own.public_key()).pem)
    replace(out / ACL_NAME, access_rules(plan).encode())
    publish(authority, out)
    return [out / name for name in (CONFIG_NAME, ACL_NAME, CERTIFICATE_NAME, CRL_NAME)] + [certificate, key]


def publish(authority: Authority, out: Path) -> None:
    """Writes what was revoked into a broker's folder: the list, and the last part of its access rules.

    Raises:
        MissingFile, UsageError: The folder holds no access rules of ours.
        StorageFault: A file cannot be written.
    """
    acl = out / ACL_NAME
    try:
        rules, mark, _ = acl.read_text(encoding="utf-8").partition(DENIED_MARK)
    except OSError as error:
        raise MissingFile("access rules", str(acl), error.strerror or str(error)) from error
    if not mark:
        raise UsageError(f"{acl} was not written by edgekit", "write it: edgekit fleet broker-config")
    authority.write_crl()
    replace(out / CRL_NAME, authority.crl_path.read_bytes())
    replace(acl, (rules + _denials(authority.denied())).encode())


def configuration(plan: Plan) -> str:
    """The text of mosquitto.conf."""
    if plan.apps:
        largest, what = limits.REQUEST_MAX_BYTES, "request that a device answers"
    else:
        largest, what = limits.MESSAGE_MAX_BYTES, "message of a device"
    if plan.one_connection:
        identifiers = """\
# The client's identifier is its name too: nobody can push another off the broker by taking its identifier. (With --app
# or --sparkplug this is left out: devices have several connections then, under identifiers that cannot be guessed.)
use_username_as_clientid true"""
    else:
        identifiers = """\
# Left out, because devices have several connections: use_username_as_clientid. Whoever takes another's identifier
# pushes it off the broker, again and again. edgekit's own identifiers cannot be guessed: a part of them follows from
# the private key. Whoever else connects (an app, a reader) had better draw one at random. And keep this broker's log,
# where they stand, to yourself."""
    listen = f" {plan.listen}" if plan.listen else ""
    return f"""\
# Mosquitto for a fleet of edgekit. Written by `edgekit fleet broker-config`; put this folder at {plan.folder},
# readable by the user mosquitto, and start `mosquitto -c {plan.folder}/{CONFIG_NAME}`, or include it from
# /etc/mosquitto/conf.d. After a change of crl.pem, acl or the certificates: systemctl reload mosquitto (SIGHUP).

# The one door, and it is TLS. Without a further `listener`, nothing else is open.
listener {plan.port}{listen}
# Nobody is let in without a name.
allow_anonymous false

# Clients must show a certificate of this authority; the broker shows its own.
cafile {plan.folder}/{CERTIFICATE_NAME}
certfile {plan.folder}/{BROKER_CERTIFICATE_NAME}
keyfile {plan.folder}/{BROKER_KEY_NAME}
require_certificate true
# The least; 1.3 is taken where the client speaks it.
tls_version tlsv1.2
# What was revoked. Read again on SIGHUP, and asked at each new connection. A connection that stands is not looked at
# again (Mosquitto 2.0), which is why the last part of the access rules denies the revoked names everything.
crlfile {plan.folder}/{CRL_NAME}

# A client is who its certificate says (its common name), whatever it claims: %u in the access rules. Never use %c
# there, which is the client's identifier, and that is the client's own word.
use_identity_as_username true
{identifiers}

# Who may read and write what; everything else is forbidden.
acl_file {plan.folder}/{ACL_NAME}

# The largest {what}, and its topic; a larger packet ends the connection.
max_packet_size {largest + 1024}
# What is under way to a collector has no bound: it takes all that it hears, and lets go what it has no room for. What
# waits for one that does not read is bounded; devices send again what is dropped, because it was not acknowledged.
max_inflight_messages 0
max_queued_messages 100000
max_queued_bytes {256 * limits.MIB}
# A client that is silent for longer than it said is gone; nobody may be silent for long.
max_keepalive 300
# What a client left behind that asked to be remembered, and did not come back.
persistent_client_expiration 1d
# Sequences of small messages are not held back to be joined.
set_tcp_nodelay true

# Births and presences are retained: they outlive a restart. Telemetry is safe without: devices keep it until then.
persistence true
persistence_location /var/lib/mosquitto/
autosave_interval 60

# Who comes and goes, and why not; that files were read again. Never `all`: it would write every message's topic.
log_type error
log_type warning
log_type notice
log_type information
connection_messages true
"""


def access_rules(plan: Plan) -> str:
    """The text of the access rules, without what is revoked."""
    answers, requests = (", answers to requests", ", requests") if plan.apps else ("", "")
    sections = [
        f"""\
# Access rules for a fleet of edgekit. What no line permits is forbidden.
# %u is the common name in the client's certificate. The authority gives no device a name with a dot, slash, + or #.

# --- Every device, and only on topics with its own name in them. ---
# Birth and last will; scalars for other tools, where its settings say so.
pattern write {topics.ROOT}/st/%u
pattern write {topics.ROOT}/now/%u
# Windows, gaps, references, events{answers}. (The collector refuses another name's partition.)
pattern write {topics.ROOT}/up/+/%u/#
# Acknowledgements, commands{requests}.
pattern read {topics.ROOT}/dn/%u/#
# Whether a collector is there. (Mosquitto warns that this one is without %u: it is the same for all, on purpose.)
pattern read {topics.ROOT}/host/+
"""
    ]
    if plan.home_assistant:
        sections.append(
            """\
# --- Every device announces itself to Home Assistant. ---
pattern write homeassistant/device/edgekit/%u/config
"""
        )
    if plan.sparkplug is not None:
        sections.append(
            f"""\
# --- Every device is an edge node of Sparkplug's group {plan.sparkplug}. ---
pattern write spBv1.0/{plan.sparkplug}/NBIRTH/%u
pattern write spBv1.0/{plan.sparkplug}/NDATA/%u
pattern write spBv1.0/{plan.sparkplug}/NDEATH/%u
pattern read spBv1.0/{plan.sparkplug}/NCMD/%u
pattern read spBv1.0/STATE/+
"""
        )
    for name in plan.collectors:
        sections.append(
            f"""\
# --- edgekit collect --name {name}, with the certificate collector.{name} ---
user collector.{name}
topic read {topics.ROOT}/up/+/+/w
topic read {topics.ROOT}/up/+/+/e
topic read {topics.ROOT}/st/+
topic write {topics.ROOT}/dn/+/ack
topic write {topics.ROOT}/alert/+
topic readwrite {topics.host(name)}
"""
        )
    for name in plan.apps:
        sections.append(
            f"""\
# --- What asks the devices' models, with the certificate app.{name} ---
user app.{name}
topic write {topics.ROOT}/dn/+/infer/#
topic read {topics.ROOT}/up/+/+/answer/#
"""
        )
    for name in plan.readers:
        lines = [
            f"# --- What shows people how the fleet fares, with the certificate app.{name}: all of it in JSON ---",
            f"user app.{name}",
            *(f"topic read {topics.ROOT}/{kind}/+" for kind in ("st", "now", "host", "alert")),
        ]
        if plan.home_assistant:
            lines.append("topic read homeassistant/#")
        if plan.sparkplug is not None:
            lines += [
                "# A host of Sparkplug: it may ask for a birth, and say that it is there.",
                f"topic read spBv1.0/{plan.sparkplug}/#",
                f"topic write spBv1.0/{plan.sparkplug}/NCMD/+",
                "topic readwrite spBv1.0/STATE/+",
            ]
        sections.append("\n".join(lines) + "\n")
    return "\n".join([*sections, ""]) + _denials([])


def _denials(names: list[str]) -> str:
    lines = [
        DENIED_MARK,
        "# Their certificates are refused at the door (crl.pem); this also stops the connections that stood before.",
    ]
    for name in names:
        lines += [f"user {name}", f"topic deny {topics.ROOT}/#"]
    return "\n".join(lines) + "\n"
