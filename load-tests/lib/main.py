"""load-tests/run: what it does is said there and in README.md."""

import argparse
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import peers
import plot
import report
import stage
from machine import Failure, describe
from report import Measurement
from workloads import WORKLOADS, Workload


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="load-tests/run", description="Edgeward beside other proxies, under load.")
    parser.add_argument("workload", metavar="WORKLOAD", nargs="+", help=f"all, or of: {' '.join(WORKLOADS)}")
    parser.add_argument("--peers", default="nginx,haproxy,envoy,traefik,caddy", help="beside Edgeward; none: nobody")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="of load for each proxy in each round")
    parser.add_argument("--connections", type=int, help="in place of the workload's own number")
    parser.add_argument("--results", type=Path, default=peers.HERE / "results", help="directory of WORKLOAD.json and .svg")
    parser.add_argument("--json", type=Path, help="the JSON goes into this file instead; for one workload")
    parser.add_argument("--edgeward", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--load", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--build", default="", help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, required=True, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.workload == ["all"]:
        chosen.workload = list(WORKLOADS)
    if unknown := [name for name in chosen.workload if name not in WORKLOADS]:
        parser.error(f"there is no workload {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
    if chosen.rounds < 1:
        parser.error("there must be a round")
    if chosen.json and len(chosen.workload) != 1:
        parser.error("--json is for one workload")
    return chosen


def present(workload: Workload, wanted: list[str], known: dict[str, peers.Peer]) -> list[peers.Peer]:
    """Those of the wanted ones that are here and can do it; the others are named."""
    found = []
    for name in dict.fromkeys(["edgeward", *wanted]):
        if name not in known:
            raise Failure(f"nobody here knows a proxy called {name}; there are {', '.join(known)}")
        if name in workload.skipped:
            print(f"skipped: {name} ({workload.skipped[name]})")
        elif known[name].program() is None:
            print(f"skipped: {name} (not installed)")
        else:
            found.append(known[name])
    return found


def run(workload: Workload, place: stage.Stage, chosen: argparse.Namespace, known: dict[str, peers.Peer]) -> None:
    print(f"\n== {workload.name}: {workload.about}")
    wanted = [] if chosen.peers == "none" else [name for name in chosen.peers.split(",") if name]
    proxies = present(workload, wanted, known)
    variants = workload.variants
    if chosen.connections:
        variants = [replace(variant, connections=chosen.connections) for variant in variants]
    about = {
        "machine": describe(),
        "build": chosen.build,
        "versions": {peer.name: peer.tell_version() for peer in proxies},
        "seconds": chosen.seconds,
    }
    if "jwt" in variants[0].features:
        for peer in proxies:
            place.try_limit(peer, variants[0])
    measured: list[Measurement] = []
    for number in range(chosen.rounds):
        # Each begins as often as the others.
        turn = number % len(proxies)
        for peer in proxies[turn:] + proxies[:turn]:
            for variant in variants:
                measured.append(place.measure(number + 1, peer, workload, variant))
                one = measured[-1]
                print(f"   round {number + 1}: {peer.name:9} {variant.name:15} {one.cost:9.2f}", file=sys.stderr, flush=True)
    order = {(variant.name, peer.name): at for at, (variant, peer) in enumerate((v, p) for v in variants for p in proxies)}
    rows = sorted(report.summarize(measured), key=lambda row: order[row.variant, row.peer])
    print(f"\n{report.table(workload, rows)}")

    told = json.dumps(report.as_json(workload, about, rows, measured), indent=1, ensure_ascii=False) + "\n"
    file = chosen.json or chosen.results / f"{workload.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(told)
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    took = report.rounds(chosen.rounds, chosen.seconds)
    file.with_suffix(".svg").write_text(plot.svg(workload, f"{versions}; {took}", rows))
    print(f"\n{file}, {file.with_suffix('.svg')}")


def main() -> int:
    chosen = arguments()
    # Whatever ends this ends what it started.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda *_: sys.exit(1))
    machine = describe()
    print(f"{machine['processor']}, {machine['cores']} cores, Linux {machine['kernel']}, {chosen.build}")
    if float(str(machine["load"])) > 0.5:
        print(f"this machine is not quiet: its load is {machine['load']:.1f}; trust ratios, if anything")
    known = peers.known(chosen.edgeward, chosen.cache)
    try:
        with stage.stage(chosen.load, chosen.seconds) as place:
            for workload in chosen.workload:
                run(WORKLOADS[workload], place, chosen, known)
    except Failure as failure:
        print(f"\nFAILED: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main())
