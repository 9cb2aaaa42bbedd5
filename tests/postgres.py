"""A real PostgreSQL on a free loopback port, which a test can kill and bring back."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.brokers import free_port, wait_until


class Postgres:
    """A cluster of its own, with Debian's defaults; its superuser is `edgekit`, and needs no password.

    The server refuses to run as root: then it runs as the package's user `postgres`, in a folder that is theirs.
    """

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        if not found:
            reason = "PostgreSQL is not installed (apt install postgresql)"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)
        self._programs = found[-1].parent
        self._user = "postgres" if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="edgekit-postgres-"))
        if self._user is not None:
            os.chown(self._folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._data, self._log = self._folder / "data", self._folder / "log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        options = ["--auth=trust", "--username=edgekit", "--encoding=UTF8", "--locale=C", "--no-sync"]
        self._run("initdb", f"--pgdata={self._data}", *options)

    def url(self, database: str = "postgres") -> str:
        """Where a database of it is."""
        return f"postgresql://edgekit@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Makes an empty database, and says where it is."""
        self._run("createdb", f"--maintenance-db={self.url()}", database)
        return self.url(database)

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self._launch()
        wait_until(self._answers, f"PostgreSQL answers; its log: {self._log}")

    def _launch(self) -> None:
        settings = ["listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories="]
        options = [part for setting in settings for part in ("-c", setting)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *options],
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self._folder,
            )

    def kill(self) -> None:
        """Kills it as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it at once, and removes its files."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            said = self._log.read_text()
            # Processes of a server that was killed end a little later than it does.
            assert "is still in use" in said[-400:], said
            self._launch()
            return False
        ready = [str(self._programs / "pg_isready"), "--quiet", f"--dbname={self.url()}"]
        return subprocess.run(ready, check=False).returncode == 0

    def _run(self, program: str, *options: str) -> None:
        command = [str(self._programs / program), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, user=self._user, cwd=self._folder)
        assert done.returncode == 0, done.stderr
