"""Two hosts on one machine: network namespaces with addresses of their own, joined by a link as slow as one likes.

Needs root, ``ip`` and ``/dev/net/tun``.  Bandwidth is shaped by ``tc`` (token bucket).  Latency is made by the link
itself, which carries each packet in user space and holds it back: ``tc netem`` is not in every kernel.  A link without
latency is a plain pair of virtual Ethernet devices.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

ADDRESSES = ("10.77.0.1", "10.77.0.2")
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_MTU = 9000
_ATTEMPTS, _MEET_S = 10, 5.0
_SPIN_S = 0.0002
"""Shorter than this a sleep cannot be trusted."""


def why_not() -> str:
    """Say why two hosts cannot be made here; empty where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "tc"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is not there"
    made = subprocess.run(["ip", "netns", "add", "hpcrnn-try"], capture_output=True, text=True, check=False, timeout=10)
    subprocess.run(["ip", "netns", "del", "hpcrnn-try"], capture_output=True, check=False, timeout=10)
    return "" if made.returncode == 0 else f"no network namespace can be made: {made.stderr.strip()}"


@dataclass
class TwoHosts:
    """A context in which ``ranks`` starts MPI ranks on both hosts.

    Attributes
    ----------
    folder : Path
        Of the remote shell.
    bandwidth_bit_per_s : float or None
        None for as fast as it goes.
    latency_s : float
        One way, added to what the machine takes itself.
    """

    folder: Path
    bandwidth_bit_per_s: float | None = None
    latency_s: float = 0.0
    names: tuple[str, str] = field(default_factory=lambda: (f"hr{os.getpid()}a", f"hr{os.getpid()}b"))
    _link: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            for name in self.names:
                _run("ip", "netns", "add", name)
                # An IPv6 address is no address for its first second, and a library that takes it fails.
                off = "for where in all default; do echo 1 > /proc/sys/net/ipv6/conf/$where/disable_ipv6; done"
                self._inside(name, "sh", "-c", off)
                self._inside(name, "ip", "link", "set", "lo", "up")
            self._make_link()
            for name, address in zip(self.names, ADDRESSES, strict=True):
                self._inside(name, "ip", "addr", "add", f"{address}/24", "dev", "net0")
                self._inside(name, "ip", "link", "set", "net0", "mtu", _MTU, "up")
                if self.bandwidth_bit_per_s:
                    rate = f"{self.bandwidth_bit_per_s:.0f}bit"
                    shape = ("tbf", "rate", rate, "burst", "64kb", "latency", "200ms")
                    self._inside(name, "tc", "qdisc", "add", "dev", "net0", "root", *shape)
            self._wait_until_ranks_meet()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._link is not None:
            self._link.kill()
            self._link.wait(timeout=10)
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False, timeout=10)

    def launcher(self) -> list[str]:
        """``mpiexec`` of MPICH on the first host; ``{ranks}`` is their number, dealt out in turn."""
        cases = "\n".join(f"{a}) space={n} ;;" for a, n in zip(ADDRESSES, self.names, strict=True))
        shell = self.folder / "remote_shell"
        shell.write_text(
            "#!/bin/sh\n# What mpiexec takes for ssh: [-x] HOST COMMAND...\n"
            'while [ "${1#-}" != "$1" ]; do shift; done\n'
            f'case $1 in\n{cases}\nesac\nshift\nexec ip netns exec "$space" sh -c "$*"\n',
            encoding="utf-8",
        )
        shell.chmod(shell.stat().st_mode | stat.S_IXUSR)
        mpiexec = Path(sys.executable).parent / "mpiexec"
        hosts = ",".join(ADDRESSES)
        inside = ["ip", "netns", "exec", self.names[0]]
        # UCX of the wheel would go through memory: the two hosts share it.
        network = ["env", "MPICH_CH4_NETMOD=ofi", "FI_PROVIDER=tcp", "FI_TCP_IFACE=net0"]
        hydra = [str(mpiexec), "-iface", "net0", "-hosts", hosts, "-ppn", "1", "-launcher", "ssh"]
        return [*inside, *network, *hydra, "-launcher-exec", str(shell), "-n", "{ranks}"]

    def _wait_until_ranks_meet(self) -> None:
        """Start two ranks until they meet: in the first second of a link libfabric cannot always listen on it."""
        program = "from mpi4py import MPI; raise SystemExit(MPI.COMM_WORLD.allreduce(1) - 2)"
        command = [word.replace("{ranks}", "2") for word in self.launcher()]
        for _ in range(_ATTEMPTS):
            process = subprocess.Popen(
                [*command, sys.executable, "-c", program], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
            try:
                if process.wait(timeout=_MEET_S) == 0:
                    return
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=10)
        message = "ranks on the two hosts do not meet"
        raise RuntimeError(message)

    def _make_link(self) -> None:
        first, second = self.names
        if not self.latency_s:
            _run("ip", "link", "add", "net0", "netns", first, "type", "veth", "peer", "name", "net0", "netns", second)
            return
        program = [sys.executable, __file__, first, second, str(self.latency_s)]
        self._link = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        if self._link.stdout is None or self._link.stdout.readline() != b"carrying\n":
            message = "the link between the two hosts did not come up"
            raise RuntimeError(message)

    def _inside(self, name: str, *words: object) -> None:
        _run("ip", "netns", "exec", name, *words)


def _run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True, timeout=10)


def carry(first: str, second: str, latency_s: float) -> None:
    """Carry packets between two namespaces, each held back by so many seconds; never returns."""
    ends = [_tun_in(first), _tun_in(second)]
    sys.stdout.write("carrying\n")
    sys.stdout.flush()
    for here, there in (ends, ends[::-1]):
        held: deque[tuple[float, bytes]] = deque()
        some = threading.Semaphore(0)
        threading.Thread(target=_take, args=(here, held, some, latency_s), daemon=True).start()
        threading.Thread(target=_give, args=(there, held, some), daemon=True).start()
    threading.Event().wait()


def _take(end: int, held: deque[tuple[float, bytes]], some: threading.Semaphore, latency_s: float) -> None:
    while True:
        select.select([end], [], [])
        held.append((time.monotonic() + latency_s, os.read(end, _MTU + 100)))
        some.release()


def _give(end: int, held: deque[tuple[float, bytes]], some: threading.Semaphore) -> None:
    while True:
        some.acquire()
        due, packet = held.popleft()
        left = due - time.monotonic()
        if left > _SPIN_S:
            time.sleep(left)
        os.write(end, packet)


def _tun_in(name: str) -> int:
    """Open a tunnel device ``net0`` in a namespace."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    target = os.open(f"/run/netns/{name}", os.O_RDONLY)
    if libc.setns(target, 0):
        raise OSError(ctypes.get_errno(), "setns")
    end = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH14x", b"net0", _IFF_TUN | _IFF_NO_PI))
    libc.setns(own, 0)
    os.close(own)
    os.close(target)
    return end


if __name__ == "__main__":
    carry(sys.argv[1], sys.argv[2], float(sys.argv[3]))
