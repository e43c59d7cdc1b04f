"""Kill the command again and again, and compare what comes out with an undisturbed run.

    python benchmarks/kill.py [--kills 10] [--only train] [--seed 1] [--config demo] [--set KEY=VALUE]... [--work DIR]

The undisturbed run fills one store. In a second store the same command is started, killed with SIGKILL at
a moment drawn within a chosen stage, and started again, until all kills are spent; then it may finish.
Shown: each kill, whether a child process outlived it, whether every unit that was finished before a kill is
still the same file at the end, and whether dataset rows, loss curve, adapter and merged weights equal the
undisturbed run's. With --only, all kills fall into that stage. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

# Where the kills go, in the order of the chain: what was finished before a kill stays finished.
SHARES = ("pdf2txt",) * 2 + ("datasets_build",) * 2 + ("train",) * 4 + ("merge", "evaluate")
STAGES = ("pdf2txt", "datasets_build", "train", "merge", "evaluate")


@dataclass
class Kill:
    stage: str
    aimed_seconds: float  # after the stage began
    survived: int  # child processes alive five seconds later
    units: int  # finished units at that moment


def command(args: argparse.Namespace, store: Path) -> list[str]:
    tool = Path(sys.executable).parent / "longfolio"
    changes = [part for item in args.set for part in ("--set", item)]
    return [str(tool), "run", args.config, "--store", str(store), "--json", *changes]


def running_stage(store: Path) -> str:
    """The stage that the newest run record names as running, or ""."""
    records = sorted((store / "runs").glob("*.json"))
    if not records:
        return ""
    try:
        stages = json.loads(records[-1].read_text())["stages"]
    except (OSError, ValueError):
        return ""
    return next((s["stage"] for s in stages if s["action"] == "running"), "")


def units(store: Path) -> dict[str, tuple[int, int]]:
    """Finished units: name -> (inode, modification time). A unit made again is another file."""
    found = (p for p in (store / "units").glob("*/*") if not p.name.startswith("."))
    return {f"{p.parent.name}/{p.name}": (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def kill_once(args: argparse.Namespace, store: Path, stage: str, delay: float, log: Any) -> Kill | None:
    """Start the command, kill it ``delay`` seconds into ``stage``; None if it finished before."""
    process = subprocess.Popen(command(args, store), stdout=subprocess.DEVNULL, stderr=log)
    began: float | None = None
    while process.poll() is None:
        current = running_stage(store)
        if began is None and current == stage:
            began = time.monotonic()
        # Past the stage already (it had little left): kill now, it still is a kill.
        passed = began is None and current in STAGES[STAGES.index(stage) + 1 :]
        if passed or (began is not None and time.monotonic() - began >= delay):
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
            process.wait()
            _, alive = psutil.wait_procs(children, timeout=5)
            return Kill(current or stage, round(delay, 2), len(alive), len(units(store)))
        time.sleep(0.02)
    return None


def manifest(row: dict[str, Any]) -> dict[str, Any]:
    """How the output of one stage of a run was made."""
    data: dict[str, Any] = json.loads((Path(row["path"]) / "manifest.json").read_text())
    return data


def results(stages: list[dict[str, Any]]) -> dict[str, Any]:
    """What must be equal: dataset rows, loss curve, adapter, merged weights."""
    rows = {row["stage"]: row for row in stages}

    def shas(stage: str) -> dict[str, str]:
        return {f["path"]: f["sha256"] for f in manifest(rows[stage])["outputs"] if f["path"].endswith(".safetensors")}

    lines = (Path(rows["train"]["path"]) / "metrics.jsonl").read_text().splitlines()
    keys = ("step", "loss", "grad_norm", "learning_rate", "tokens")  # what is no time
    curve = json.dumps([[json.loads(line)[key] for key in keys] for line in lines])
    return {
        "rows": rows["datasets_build"]["metrics"]["row_digest"],
        "curve": hashlib.sha256(curve.encode()).hexdigest(),
        "adapter": shas("train"),
        "merged": shas("merge"),
    }


def complete(args: argparse.Namespace, store: Path, log: Any) -> dict[str, Any]:
    done = subprocess.run(command(args, store), stdout=subprocess.PIPE, stderr=log, text=True)
    if done.returncode != 0:
        sys.exit(f"the run failed with exit code {done.returncode}; see {log.name}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", choices=STAGES, help="kill in this stage alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--config", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--work", type=Path, help="keep the stores here instead of a temporary folder")
    parser.add_argument("--out", type=Path, help="results/kill.json, or kill_STAGE.json")
    args = parser.parse_args()
    shares = (args.only,) * args.kills if args.only else SHARES
    name = f"kill_{args.only}.json" if args.only else "kill.json"
    args.out = args.out or Path(__file__).parent / "results" / name
    os.environ["HF_HUB_OFFLINE"] = "1"
    work = args.work or Path(tempfile.mkdtemp(prefix="longfolio-kill-"))
    work.mkdir(parents=True, exist_ok=True)
    draw = random.Random(args.seed)
    with (work / "log.txt").open("a") as log:
        print("undisturbed run", flush=True)
        calm = complete(args, work / "calm", log)
        # From the manifests, so that a --work folder with a finished undisturbed run can be used again.
        seconds = {row["stage"]: manifest(row)["seconds"] for row in calm["stages"]}
        reference = results(calm["stages"])

        store = work / "killed"
        kills: list[Kill] = []
        seen: dict[str, tuple[int, int]] = {}
        remade: set[str] = set()
        for number in range(args.kills):
            stage = shares[number * len(shares) // args.kills]
            # A stage goes on from where it was, so each of its kills gets a share of its time.
            delay = draw.uniform(0, seconds[stage] / shares.count(stage))
            kill = kill_once(args, store, stage, delay, log)
            if kill is None:
                print(f"kill {number + 1}: the run was done before {stage}", flush=True)
                break
            kills.append(kill)
            now = units(store)
            remade |= {name for name, file in seen.items() if now.get(name) != file}
            seen |= now
            print(f"kill {number + 1:2}: {kill.stage:<15} {kill.aimed_seconds:6.1f} s  {kill.units:4} units  "
                  f"{kill.survived} children alive", flush=True)  # fmt: skip
        final = complete(args, store, log)
        last = units(store)
        remade |= {name for name, file in seen.items() if last.get(name) != file}
        outcome = results(final["stages"])

    equal = {key: outcome[key] == reference[key] for key in reference}
    report = {
        "command": f"benchmarks/kill.py --kills {args.kills}"
        + (f" --only {args.only}" if args.only else "")
        + f" --seed {args.seed} --config {args.config}"
        + "".join(f" --set {item}" for item in args.set),
        "undisturbed_seconds": seconds, "kills": [asdict(k) for k in kills],
        "children_alive": sum(k.survived for k in kills), "units_made_again": len(remade),
        "equal": equal, "sha256": outcome,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\nkills {len(kills)}, of them in train {sum(k.stage == 'train' for k in kills)}; "
          f"children alive {report['children_alive']}; units made again {len(remade)}")  # fmt: skip
    for key, same in equal.items():
        print(f"{key:<8} {'equal to' if same else 'DIFFERENT from'} the undisturbed run's")
    if not args.work:
        shutil.rmtree(work)
    enough = len(kills) == args.kills
    sys.exit(0 if enough and all(equal.values()) and not report["children_alive"] and not remade else 1)


if __name__ == "__main__":
    main()
