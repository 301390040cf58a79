"""The whole flow and the page in a namespace without a route: nothing of it tries to reach beyond this machine.

Two witnesses. Python's own audit events record each address connected to, sent to or looked up, in every process
of the flow. The kernel counts what it could not route, whichever library or language asked. Both are shown to see.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMESPACE = ["unshare", "--user", "--map-root-user", "--net"]

CONFIG = """
name = "quiet"
workspace = "work"
source = { kind = "embedded", sets = ["a"], max_stays = 600 }
cohort = { tasks = ["in_hospital_death"] }
encode.raw = { kind = "identity" }
condense.private = { kind = "private_moments", n_per_class = 10 }
utility = { models = ["logistic_regression"], n_seeds = 1, n_random_draws = 1 }
audit = { max_targets = 20, n_bootstrap = 20 }
release = { artefact = "private", policy = "demo", site = "test site", licence = "ODbL-1.0" }
"""

WITNESS = """
import os, sys

def witness(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        place = args[1]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        place = args
    else:
        return
    if not isinstance(place, tuple):  # a path of this machine
        return
    handle = os.open(os.environ["ATTEMPTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(handle, f"{event} {place[0]}\\n".encode())
    os.close(handle)

sys.addaudithook(witness)
"""

LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket() as any_socket:
    ask = struct.pack("16sh", b"lo", 0)
    flags = struct.unpack("16sh", fcntl.ioctl(any_socket, 0x8913, ask)[:18])[1]  # SIOCGIFFLAGS
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP
"""

UNROUTED = """
from pathlib import Path
lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:")]
four = int(dict(zip(lines[0], lines[1]))["OutNoRoutes"])
six = dict(line.split() for line in Path("/proc/net/snmp6").read_text().splitlines())
print("unrouted", four + int(six.get("Ip6OutNoRoutes", 0)))
"""

REACH_OUT = """
import socket
for address in (("192.0.2.1", 80),):  # kept for documentation by RFC 5737; nobody has it
    with socket.socket() as stranger:
        try:
            stranger.connect(address)
        except OSError:
            pass
"""


@pytest.fixture(scope="module")
def without_a_route() -> None:
    try:
        made = subprocess.run([*NAMESPACE, "true"], capture_output=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare on this system")
    if made.returncode != 0:
        pytest.skip("the kernel forbids network namespaces to this user")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # on a busy machine; alone it takes about a minute
@pytest.mark.usefixtures("without_a_route")
def test_a_whole_run_and_its_page_reach_out_to_nobody(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(CONFIG)
    for name, code in {"up": LOOPBACK_UP, "unrouted": UNROUTED, "out": REACH_OUT}.items():
        (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(WITNESS)
    python = sys.executable
    script = f"""
        {python} up.py
        {python} -m flows.cli run run.toml; echo "run $?"
        {python} -m flows.cli watch --out work
        {python} -m flows.cli doctor --out work > doctor.txt; echo "doctor $?"
        {python} unrouted.py
        cp "$ATTEMPTS" before
        {python} out.py
        {python} unrouted.py
    """
    chosen = ("PREFECT_API_URL", "PREFECT_PROFILE", "CI")
    environ = {name: value for name, value in os.environ.items() if name not in chosen} | {
        "ATTEMPTS": str(tmp_path / "attempts"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "hook"), str(Path(__file__).parents[2])]),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "OMP_NUM_THREADS": "1",
    }
    answer = subprocess.run(
        [*NAMESPACE, "sh", "-c", script],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    told = answer.stdout + answer.stderr
    lines = answer.stdout.splitlines()
    assert {"run 0", "run 13", "run 14"} & set(lines), told  # so few stays decide nothing; the whole road was walked
    assert (tmp_path / "work" / "runs" / "quiet" / "report.html").exists(), told
    assert (tmp_path / "work" / "watch" / "index.html").exists(), told
    assert "doctor 0" in lines, (tmp_path / "doctor.txt").read_text()
    places = {line.split(" ", 1)[1] for line in (tmp_path / "before").read_text().splitlines()}
    assert places, "nobody was watched: Prefect talks to itself over loopback"
    assert not {place for place in places if not is_here(place)}, places
    counts = [int(line.split()[1]) for line in lines if line.startswith("unrouted ")]
    assert counts == [0, 1], told  # the second: that the kernel's count sees an attempt
    assert "socket.connect 192.0.2.1" in (tmp_path / "attempts").read_text()  # and that the recorder does


def is_here(place: str) -> bool:
    """This machine, by a loopback address or name; None stands for any address of it."""
    return place in ("localhost", "::1", "None") or place.startswith("127.")
