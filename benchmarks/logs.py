"""Shipping a container's log, beside `curl` that copies the same lines to the same endpoint.

The endpoint is a bare socket in a process of its own that reads each request and answers it, unpacks and parses nothing, and is therefore
no bottleneck: what is measured is what sends. Both send the same 200,000 lines: `curl` as the store takes them, in requests of a mebibyte;
the agent's side is the whole of it: reading Podman's file, joining, encoding, compressing, sending, holding what has not settled, keeping
positions. Three rounds in turn; the medians are compared.

To such an endpoint `curl` only copies memory; VictoriaLogs 1.26 took 220,000 to 330,000 lines a second from `curl`. So the agent's rate is
also compared with half of the latter.
"""

import multiprocessing
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import anyio
import anyio.lowlevel
import psutil

from benchmarks.figures import Figure
from core.container_log import Assembler, Source
from shell.adapters.victorialogs import VictoriaLogs
from shell.logs.positions import Positions
from shell.logs.pump import Pump
from shell.logs.sender import Sender
from shell.logs.spool import Spool

LINES = 200_000
_ROUNDS = 3
_STORE_LINES_PER_S = 330_000  # VictoriaLogs 1.26, from `curl`
_GOAL = 2.0  # half the rate
_SETTLE_S = 10.0
_PATIENCE_S = 60.0
_MIB = 1024**2
_MEMORY_GOAL_MIB = 32
_SOURCE = Source("5b1d0000-0000-4000-8000-000000000001", "7c2e0000-0000-4000-8000-000000000001")


def main() -> list[Figure]:
    """Time and memory."""
    ours: list[tuple[float, float, float]] = []
    theirs: list[float] = []
    with tempfile.TemporaryDirectory() as name, _Endpoint() as endpoint:
        folder = Path(name)
        log = folder / "ctr.log"
        log.write_bytes(b"".join(_line(number) for number in range(LINES)))
        for number in range(_ROUNDS):
            theirs.append(_curl_s(folder, log, endpoint.url))
            (folder / str(number)).mkdir()
            ours.append(_in_its_own_process(folder / str(number), log, endpoint.url))
    wall_s, _, grown_mib = (statistics.median(one[column] for one in ours) for column in range(3))
    return [
        Figure(f"shipping {LINES:,} lines", "curl to VictoriaLogs", None, wall_s, LINES / _STORE_LINES_PER_S, _GOAL),
        Figure(f"shipping {LINES:,} lines", "curl with the same bytes", None, wall_s, statistics.median(theirs)),
        Figure("memory on top while shipping", "MiB", None, grown_mib, 1, _MEMORY_GOAL_MIB),
    ]


def _in_its_own_process(folder: Path, log: Path, url: str) -> tuple[float, float, float]:
    """Seconds, seconds of the processor, MiB that the process grew by."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_measured, args=(theirs, folder, log, url))
    process.start()
    found: tuple[float, float, float] = ours.recv()
    process.join()
    return found


def _measured(pipe: Connection, folder: Path, log: Path, url: str) -> None:
    before_mib = psutil.Process().memory_info().rss / _MIB
    begun, processor = time.perf_counter(), time.process_time()
    anyio.run(_agent, folder, log, url)
    took = time.perf_counter() - begun
    grown = _peak_mib() - before_mib
    pipe.send((took, time.process_time() - processor, grown))


def _line(number: int) -> bytes:
    stamp = f"2026-11-23T11:{30 + number // 60_000 % 30:02d}:{number // 1000 % 60:02d}.{number % 1000 * 1_000_000:09d}+00:00"
    return f"{stamp} std{'out' if number % 3 else 'err'} F request {number} was answered with 200 in {number % 97} ms\n".encode()


def _curl_s(folder: Path, log: Path, url: str) -> float:
    """The same bytes as the agent sends, cut into requests as the agent cuts them, sent by one curl on one connection."""
    raw = Assembler(_SOURCE).feed(log.read_bytes())
    words: list[str] = []
    for number, at in enumerate(_cuts(raw)):
        part = folder / f"part-{number}"
        part.write_bytes(raw[at[0] : at[1]])
        words += ["--next"] if words else []
        words += [
            "-sS",
            "-o",
            "/dev/null",
            "-H",
            "Content-Type: application/json",
            "-H",
            "Expect:",
            "--data-binary",
            f"@{part}",
        ]
        words += [f"{url}/insert/jsonline"]
    del raw
    begun = time.perf_counter()
    subprocess.run(["curl", *words], check=True)
    return time.perf_counter() - begun


def _cuts(raw: bytes) -> list[tuple[int, int]]:
    found, at = [], 0
    while at < len(raw):
        end = raw.find(b"\n", min(at + _MIB, len(raw) - 1)) + 1
        found.append((at, end))
        at = end
    return found


def _peak_mib() -> float:
    """The most memory that this process has had. (`ru_maxrss` would count what its parent had, too.)"""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) / 1024


async def _agent(folder: Path, log: Path, url: str) -> None:
    endpoint = VictoriaLogs(url)
    pump = Pump(Sender(endpoint, Spool(folder / "spool", 256 * _MIB), _SETTLE_S), Positions(folder / "positions.json"))
    pump.follow("c", log, lambda last_ns, begun: Assembler(_SOURCE, last_ns, begun))
    read = anyio.Event()

    async def look() -> None:
        await anyio.lowlevel.checkpoint()
        if pump.read_lines >= LINES:
            read.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pump.sender.run)
        tasks.start_soon(pump.run, look)
        await read.wait()
        await pump.drained(_PATIENCE_S)  # the last batch would wait for a second to be filled
        assert pump.sender.counts.sent == LINES
        tasks.cancel_scope.cancel()
    pump.logs["c"].tail.close()
    await endpoint.aclose()


class _Endpoint:
    """The bare socket, in a process of its own."""

    def __enter__(self) -> "_Endpoint":
        ours, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        self.url: str = ours.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


def _serve(pipe: Connection) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(f"http://127.0.0.1:{listener.getsockname()[1]}")
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection,), daemon=True).start()


def _answer(connection: socket.socket) -> None:
    """Each request with 200, once its body is here. (One of `/metrics` is, too, and tells no start time.)"""
    room, left = bytearray(_MIB), b""
    while True:
        while (at := left.find(b"\r\n\r\n")) == -1:
            if not (more := connection.recv(65_536)):
                return
            left += more
        head, left = left[:at].lower(), left[at + 4 :]
        _, _, length = head.partition(b"content-length: ")
        missing = int(length.partition(b"\r\n")[0] or 0) - len(left)
        left = left[len(left) + missing :] if missing < 0 else b""
        while missing > 0:
            if not (taken := connection.recv_into(room, min(missing, len(room)))):
                return
            missing -= taken
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
