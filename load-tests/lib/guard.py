"""load-tests/guard: what it does is said there and in README.md."""

import argparse
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import peers
import stage
import verify
from machine import Failure
from workloads import WORKLOADS

FILE = peers.HERE / "instructions.toml"
WATCHED = ["plain", "jwt"]
CLIENTS = 16
# Enough that every token has been seen, and every connection used.
WARM = 2_000
REQUESTS = 4_000

_HEAD = """\
# Instructions in user space that a request costs Edgeward, by callgrind: what `load-tests/guard` compares with. They do not
# depend on how fast or busy a machine is, but on its architecture and on the toolchain.
#
#   load-tests/guard --record     writes this file; for a change that costs more and is worth it, with its reason
"""


def count(place: stage.Stage, peer: peers.Peer, name: str) -> float:
    """Instructions a request, without the start of the process and the first requests."""
    variant = WORKLOADS[name].variants[0]
    profile = place.directory / f"{name}.callgrind"
    valgrind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={profile}"]
    proxy = place.start(peer, variant, under=valgrind)
    control = ["callgrind_control", str(proxy.process.child.pid)]
    try:
        verify.wait_until_ready(proxy, variant, place.tokens)
        # Not the metrics: telling what memory the process has looks at what valgrind hides from it.
        verify.check_answers(proxy, variant, place.tokens)
        place.load.requests(variant, proxy.port, CLIENTS, WARM)
        subprocess.run([*control, "-i", "on"], check=True, capture_output=True)
        outcome = place.load.requests(variant, proxy.port, CLIENTS, REQUESTS)
        subprocess.run([*control, "-d"], check=True, capture_output=True)
    finally:
        proxy.process.end()
    if outcome.errors or outcome.requests != REQUESTS:
        raise Failure(f"{name}: {outcome.requests} answers, {outcome.errors} errors: {outcome.first_error}")
    total = re.search(r"^(?:totals|summary): (\d+)", Path(f"{profile}.1").read_text(), re.MULTILINE)
    if not total:
        raise Failure("callgrind counted nothing")
    return int(total[1]) / REQUESTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="load-tests/guard", description="Do requests cost more instructions than they did?")
    parser.add_argument("--record", action="store_true", help=f"write what is counted to {FILE.name}")
    parser.add_argument("--allowed", type=float, default=3.0, help="percent above what is recorded")
    parser.add_argument("--edgeward", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--load", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--build", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--commit", required=True, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    peer = peers.known(chosen.edgeward, Path())["edgeward"]
    try:
        with stage.stage(chosen.load, 0) as place:
            counted = {name: count(place, peer, name) for name in WATCHED}
    except Failure as failure:
        print(f"FAILED: {failure}", file=sys.stderr)
        return 1
    if chosen.record:
        lines = [f"{name} = {instructions:.0f}" for name, instructions in counted.items()]
        about = [f'build = "{chosen.build}"', f'commit = "{chosen.commit}"']
        FILE.write_text("\n".join([_HEAD.rstrip(), "", *about, "", "[instructions]", *lines, ""]))
        print(f"recorded in {FILE}:", ", ".join(lines))
        return 0
    recorded = tomllib.loads(FILE.read_text())
    if recorded["build"] != chosen.build:
        print(f"recorded with another build ({recorded['build']}), counted with {chosen.build}: expect differences")
    worse = []
    print(f"{'':8} {'recorded':>10} {'now':>10} {'':>8}")
    for name, now in counted.items():
        before = recorded["instructions"][name]
        change = (now / before - 1) * 100
        print(f"{name:8} {before:10} {now:10.0f} {change:+7.1f} %")
        if change > chosen.allowed:
            worse.append(name)
    if worse:
        print(f"FAILED: more than {chosen.allowed:g} % above what is recorded: {', '.join(worse)}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
