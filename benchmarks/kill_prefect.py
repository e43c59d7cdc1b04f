"""Kill each process of a run under Prefect, restart and retry, and compare with an undisturbed run.

    python benchmarks/kill_prefect.py [--only CASE]... [--keep] [--out FILE]

Every case has a store, a server and workers of its own (`longfolio up`) and a run of the end-to-end flow that
is started through the API as the UI does it. In the middle of the conversion or of the training one process is
killed with SIGKILL; `up` restarts it; a run that ended otherwise than Completed is retried through the API. The
cases `cli-*` do the same to `longfolio run`, and `training-up` to `up` itself.

Shown: how soon after the kill the flow run was final, as what, whether a retry was needed, whether all outputs
equal the undisturbed run's, what was done again, what of the database is not final, and which processes are left.
Exit code 1 if a case does not hold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from kill import running_stage, units

sys.path.append(sys.path.pop(0))  # this folder's pdf2txt.py must not stand before the library of that name

from flows.orchestration.server import Home, joined, read_json
from flows.runs import list_runs
from flows.store import Store, list_files

ROOT = Path(__file__).parent.parent
TOOL = Path(sys.executable).parent / "longfolio"
FLOW = "end-to-end"

# Of every case: two documents into the conversion, a quarter into the training.
DOCUMENTS, STEPS = 2, 30
CONFIG: dict[str, Any] = {
    "pdfs": [str(ROOT / "examples" / "pdfs")],
    "pdf2txt": {"workers": 1},
    "dataset": {"max_tokens": 384, "validation_share": 0.3, "min_validation_rows": 1},
    "train": {"max_steps": 120, "save_every_steps": 10, "global_batch_size": 2, "gradient_checkpointing": False,
              "threads": 1},
    "evaluate": {"answers": {"max_rows": 4}, "perplexity": {"window": 128, "max_windows": 4},
                 "passkey": {"lengths": [128], "depths": [0.5], "trials": 2}},
    "flows": {"shard_documents": 2},
}  # fmt: skip

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
OPEN = ["RUNNING", "PENDING", "PAUSED", "CANCELLING"]
START_SECONDS = 180.0  # for `up`, and for a run to get to where it is killed
FINAL_SECONDS = 300.0  # a run that is not final by then is called Running for ever
SETTLE_SECONDS = 90.0  # `up` looks every 30 at states that are older than 30
GONE_SECONDS = 40.0
QUIET_SECONDS = 5.0  # before a retry
CLOCK = ("seconds", "tokens_per_second", "utilisation", "memory_bytes")  # of metrics.jsonl: differ from run to run


@dataclass
class Result:
    """What a case showed; seconds are counted from the kill."""

    case: str
    killed: str
    during: str
    restarted_seconds: float | None = None  # until what was killed was there again, where something restarts it
    final_seconds: float | None = None  # until the flow run was in a final state
    final_state: str = ""
    retries: int = 0
    end_state: str = ""
    end_seconds: float | None = None
    differs: list[str] = field(default_factory=list)  # files that are not as the undisturbed run's
    units_before: int = 0
    units_again: int = 0  # of those, made again
    documents_again: int = 0
    steps_before: int = 0
    steps_again: int = 0
    not_final: list[str] = field(default_factory=list)  # flow and task runs, when all was done
    settled_seconds: float | None = None  # from the end of the run until none was left that is not final
    orphans: list[str] = field(default_factory=list)  # beside `up`, server and workers, when the run was done
    left: list[str] = field(default_factory=list)  # after `down`, or after the command
    gone_seconds: float | None = None  # until nothing was left, after `down` or the command
    notes: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def good(self) -> bool:
        bad = self.error or self.differs or self.units_again or self.not_final or self.orphans or self.left
        return not bad and self.end_state == "Completed"


# ------------------------------------------------------------------- a store with its processes


@dataclass
class World:
    """The store, the state directory, and the processes of one case, known by their environment."""

    folder: Path
    config: Path
    port: int = 0
    killed: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.store = Store(self.folder / "store")
        self.state = self.folder / "state"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        drop = ("PREFECT_", "LONGFOLIO_", "XDG_STATE_HOME")
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
        self.environment |= {"XDG_STATE_HOME": str(self.state), "HF_HUB_OFFLINE": "1"}

    @property
    def home(self) -> Home:
        with self.environ():
            return Home.of(self.store.root)

    @contextmanager
    def environ(self) -> Iterator[None]:
        """This process's environment as that of the case."""
        before = dict(os.environ)
        os.environ.clear()
        os.environ.update(self.environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def tool(self, *words: str) -> list[str]:
        return [str(TOOL), *words, "--store", str(self.store.root)]

    def call(self, *words: str, limit: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
        """A `longfolio` command, to its end."""
        return subprocess.run(
            self.tool(*words), env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=limit, cwd=self.folder,
        )  # fmt: skip

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A `longfolio` command in the background; what it says goes to ``said.txt``."""
        with (self.folder / "said.txt").open("ab") as said:
            return subprocess.Popen(
                self.tool(*words), env=self.environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                cwd=self.folder,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return (self.folder / "said.txt").read_text(errors="replace")

    def processes(self) -> dict[str, list[psutil.Process]]:
        """All that lives and was started for this case, by what it is."""
        found: dict[str, list[psutil.Process]] = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                mine = process.environ().get("XDG_STATE_HOME") == str(self.state)
                if mine and process.pid not in self.killed:  # which may take a moment to be gone
                    found.setdefault(kind(process.cmdline()), []).append(process)
        return found

    def wait_gone(self, seconds: float) -> tuple[float, list[str]]:
        """Until no process is left, ``seconds`` at most: how long that took, and what is left."""
        clock = Clock()
        while self.processes() and clock() < seconds:
            time.sleep(0.2)
        return clock(), sorted(self.processes())

    def end_all(self) -> None:
        """End what a failed case left behind."""
        for group in self.processes().values():
            for process in group:
                with suppress(psutil.Error):
                    process.kill()


def kind(command: list[str]) -> str:
    """What a process of ours is."""
    line = " ".join(command)
    for part, name in (
        ("flows.child", "trainer"), ("pdf2txt.worker", "conversion process"), ("flows.orchestration.server", "server"),
        ("worker start --pool cpu", "worker"), ("worker start --pool gpu", "gpu worker"), ("flows.cli up", "up"),
        ("longfolio run", "command"), ("longfolio resume", "command"), ("longfolio", "longfolio"),
        ("prefect.engine", "flow process"), ("prefect", "prefect"),
    ):  # fmt: skip
        if part in line:
            return name
    return " ".join([Path(command[0]).name, *command[1:3]]) if command else "unnamed"


class Clock:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self) -> float:
        return round(time.monotonic() - self.began, 1)


def wait(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of ``condition``."""
    clock = Clock()
    while clock() < seconds:
        if value := condition():
            return value
        time.sleep(0.1)
    raise TimeoutError(f"{what} did not happen within {seconds:g} s")


# ------------------------------------------------------------------- Prefect's API, as the UI uses it


class Api:
    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, timeout=20.0, trust_env=False)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.client.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def start(self, world: World) -> str:
        """A run of the deployment of the flow; its id."""
        [deployment] = self.post("/deployments/filter", {"flows": {"name": {"any_": [FLOW]}}})
        request = {"config": str(world.config), "overrides": [], "store": str(world.store.root)}
        body = {"parameters": {"request": request}, "state": {"type": "SCHEDULED"}}
        return str(self.post(f"/deployments/{deployment['id']}/create_flow_run", body)["id"])

    def state(self, run: str) -> dict[str, Any] | None:
        """The state of a flow run; None while the server does not answer."""
        try:
            found: dict[str, Any] = self.client.get(f"/flow_runs/{run}").raise_for_status().json()["state"]
        except httpx.HTTPError:
            return None
        return found

    def final(self, run: str) -> dict[str, Any] | None:
        state = self.state(run)
        return state if state and state["type"] in FINAL else None

    def retry(self, run: str) -> None:
        answer = self.post(f"/flow_runs/{run}/set_state", {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}})
        if answer["status"] != "ACCEPT":
            raise RuntimeError(f"the retry was refused: {answer}")

    def not_final(self) -> list[str]:
        """Flow and task runs that stand as going on; what is scheduled for another day does not count."""
        flows = self.post("/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": [*OPEN, "SCHEDULED"]}}}})
        tasks = self.post("/task_runs/filter", {"task_runs": {"state": {"type": {"any_": [*OPEN, "SCHEDULED"]}}}})
        flows = [f for f in flows if not f["auto_scheduled"]]
        stateless = [t for t in self.post("/task_runs/filter", {}) if t["state"] is None]
        return [f"{what} {r['name']}: {r['state_name']}" for what, rows in (
            ("flow run", flows), ("task run", [*tasks, *stateless])) for r in rows]  # fmt: skip

    def wait_settled(self, result: Result) -> None:
        """Until every state is final, or too long."""
        clock = Clock()
        while (left := self.not_final()) and clock() < SETTLE_SECONDS:
            time.sleep(0.5)
        result.not_final, result.settled_seconds = left, clock()


# ------------------------------------------------------------------- what a run has made


def outputs(store: Store) -> dict[str, str]:
    """The content of every file of every finished output, without the seconds of the loss curve."""
    found = {}
    for stage, _, folder in store.outputs():
        for file in list_files(folder):
            found[f"{stage}/{file['path']}"] = file["sha256"]
            if file["path"] == "metrics.jsonl":
                lines = [json.loads(line) for line in (folder / file["path"]).read_text().splitlines()]
                kept = [{k: v for k, v in line.items() if k not in CLOCK} for line in lines]
                found[f"{stage}/{file['path']}"] = hashlib.sha256(json.dumps(kept).encode()).hexdigest()
    return found


def steps(store: Store) -> list[str]:
    """A line for each optimizer step of the training so far; that of a step done again differs in its seconds."""
    files = [p for part in ("work/train/*", "stages/train/*") for p in store.root.glob(f"{part}/metrics.jsonl")]
    return files[0].read_text().splitlines() if files else []


@dataclass(frozen=True)
class Moment:
    """What was finished at a kill."""

    units: dict[str, tuple[int, int]]
    steps: list[str]


def reached(world: World, during: str) -> bool:
    """Whether the moment of the kill has come."""
    store = world.store
    if during == "start":
        return bool(world.processes().get("flow process"))
    if during == "conversion":
        documents = sum(name.startswith("document/") for name in units(store.root))
        return running_stage(store.root) == "pdf2txt" and documents >= DOCUMENTS
    return running_stage(store.root) == "train" and len(steps(store)) >= STEPS


class Bench:
    """The undisturbed run and the cases."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.config = work / "run.yaml"
        self.reference: dict[str, str] = {}
        self.seconds: dict[str, float] = {}

    def prepare(self) -> None:
        model = tiny_model(self.work)
        self.config.write_text(yaml.safe_dump({**CONFIG, "model": {"path": str(model)}}))
        world = World(self.work / "calm", self.config)
        done = world.call("run", str(self.config), "--no-prefect", limit=FINAL_SECONDS)
        if done.returncode:
            sys.exit(f"the undisturbed run failed: {done.stderr[-2000:]}")
        self.reference = outputs(world.store)
        self.seconds = {s: (world.store.manifest(s, d) or {})["seconds"] for s, d, _ in world.store.outputs()}

    def carry(self, case: Case) -> Result:
        """One case; what goes wrong in it is its result."""
        world = World(self.work / case.name, self.config)
        result = Result(case.name, " and ".join(case.victims), case.during)
        try:
            case.how(self, case, world, result)
        except Exception as error:
            result.error = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        finally:
            world.end_all()
        return result

    def compare(self, world: World, result: Result, before: Moment) -> None:
        made, now = outputs(world.store), units(world.store.root)
        names = sorted({*made, *self.reference})
        result.differs = [name for name in names if made.get(name) != self.reference.get(name)]
        again = [name for name, file in before.units.items() if now.get(name) != file]
        result.units_before, result.units_again = len(before.units), len(again)
        result.documents_again = sum(name.startswith("document/") for name in again)
        result.steps_before = len(before.steps)
        result.steps_again = len({*before.steps} - {*steps(world.store)})


def tiny_model(folder: Path) -> Path:
    """A random 2-layer Llama with the tokenizer and the head layout of the embedded model."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from longlora.models import ModelSettings, load_tokenizer, prepare

    cache = os.environ.get("LONGFOLIO_TEST_MODELS")
    source = prepare(ModelSettings(name="smollm2-135m-q4"), Path(cache) if cache else folder / "models")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=72, intermediate_size=96, num_hidden_layers=2, num_attention_heads=9,
        num_key_value_heads=3, head_dim=8, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "tiny")
    load_tokenizer(source).save_pretrained(folder / "tiny")
    return folder / "tiny"


# ------------------------------------------------------------------- the cases


@dataclass(frozen=True)
class Case:
    name: str
    during: str
    victims: tuple[str, ...]
    how: Callable[[Bench, Case, World, Result], None]


def up(world: World) -> Api:
    done = world.call("up", "--port", str(world.port), "--detach")
    if done.returncode:
        raise RuntimeError(f"up failed: {done.stderr[-2000:]}")
    return Api(f"http://127.0.0.1:{world.port}/api")


def down(world: World, result: Result) -> None:
    clock = Clock()
    done = world.call("down", limit=2 * GONE_SECONDS)
    if done.returncode:
        raise RuntimeError(f"down failed: {done.stderr[-2000:]}")
    result.notes["down_seconds"] = clock()
    result.gone_seconds, result.left = world.wait_gone(max(0.0, GONE_SECONDS - clock()))
    result.gone_seconds = clock()


def kill(world: World, victims: tuple[str, ...]) -> tuple[Clock, Moment]:
    """SIGKILL for each, at once; the clock that began then, and what was finished at that moment."""
    found = world.processes()
    hit = [found[v][0] for v in victims]
    world.killed = {process.pid for process in hit}
    before = Moment(units(world.store.root), steps(world.store))
    for process in hit:
        process.send_signal(signal.SIGKILL)
    clock = Clock()
    return clock, before


def back(world: World, victims: tuple[str, ...]) -> bool:
    """Whether what `up` keeps is there (again)."""
    found = world.processes()
    server = world.home.running()
    return all(found.get(v) for v in victims) and ("server" not in victims or bool(server and answers(server["url"])))


def answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/health", timeout=2.0, trust_env=False).status_code == 200
    return False


def follow(api: Api, run: str, clock: Clock, result: Result) -> None:
    """To the final state after the kill, and through as many retries as it takes."""
    state = wait(lambda: api.final(run), FINAL_SECONDS, "a final state after the kill")
    result.final_seconds, result.final_state = clock(), state["name"]
    result.notes["message"] = (state.get("message") or "")[:200]
    while state["type"] != "COMPLETED" and result.retries < 3:
        wait_quiet(api, run)
        api.retry(run)
        result.retries += 1
        state = wait(lambda: api.final(run), FINAL_SECONDS, "a final state after the retry")
    result.end_state, result.end_seconds = state["type"].capitalize(), clock()
    if state["type"] != "COMPLETED":
        result.notes["end_message"] = (state.get("message") or "")[:500]


def wait_quiet(api: Api, run: str) -> None:
    """Until the state is five seconds old: a worker reports a crash twice, the second time over a quick retry."""
    clock, last = Clock(), None
    while clock() < QUIET_SECONDS:
        state = api.state(run)
        if state is not None and state["id"] != last:
            clock, last = Clock(), state["id"]
        time.sleep(0.2)


def extra(world: World) -> list[str]:
    """What runs beside `up`, its server and its workers, once it had ten seconds to end."""

    def others() -> list[str]:
        allowed = {"up": 1, "server": 1, "worker": 1, "gpu worker": 1}
        return [name for name, group in world.processes().items() if len(group) > allowed.get(name, 0)]

    with suppress(TimeoutError):
        wait(lambda: not others(), 10.0, "the end of the run's processes")
    return others()


def under_up(bench: Bench, case: Case, world: World, result: Result) -> None:
    """Kill one of the processes of a run that a worker carries."""
    api = up(world)
    run = api.start(world)
    wait(lambda: reached(world, case.during), START_SECONDS, f"the {case.during}")
    clock, before = kill(world, case.victims)
    kept = tuple(v for v in case.victims if v in ("server", "worker"))
    if kept:
        wait(lambda: back(world, kept), START_SECONDS, f"the restart of {kept}")
        result.restarted_seconds = clock()
    follow(api, run, clock, result)
    finish(bench, api, world, result, before)


def finish(bench: Bench, api: Api, world: World, result: Result, before: Moment) -> None:
    api.wait_settled(result)
    result.orphans = extra(world)
    bench.compare(world, result, before)
    down(world, result)


def up_itself(bench: Bench, case: Case, world: World, result: Result) -> None:
    """Kill `up`: its workers and its server end by themselves, and another `up` goes on."""
    api = up(world)
    run = api.start(world)
    wait(lambda: reached(world, case.during), START_SECONDS, f"the {case.during}")
    clock, before = kill(world, case.victims)
    seconds, left = world.wait_gone(60.0)
    result.notes |= {"all_gone_seconds": seconds, "left_after_kill": left}
    result.orphans = left
    up(world)
    result.restarted_seconds = clock()
    follow(api, run, clock, result)
    left_before = result.orphans
    finish(bench, api, world, result, before)
    result.orphans = left_before + result.orphans


def command_server(bench: Bench, case: Case, world: World, result: Result) -> None:
    """Kill the private server of `longfolio run`: it is started again, or the command says what was not told."""
    process = world.start("run", str(bench.config))
    wait(lambda: reached(world, case.during), START_SECONDS, f"the {case.during}")
    clock, before = kill(world, case.victims)
    wait(lambda: back(world, case.victims) or process.poll() is not None, FINAL_SECONDS, "a server, or the end")
    result.restarted_seconds = clock() if process.poll() is None else None
    code = process.wait(FINAL_SECONDS)
    result.final_seconds, result.final_state = clock(), f"exit code {code}"
    repaired(bench, world, result, clock, before, world.tool("run", str(bench.config)))
    result.notes["said"] = [line.strip() for line in world.said.splitlines() if "Prefect" in line][:3]
    if code or "Traceback" in world.said:
        result.error = "a traceback" if "Traceback" in world.said else "exit code not 0"
    elif result.notes["first_run_before"] != "Completed" and not result.notes["said"]:
        result.error = "the server was not told how the run ended, and nothing was said about it"


def command_itself(bench: Bench, case: Case, world: World, result: Result) -> None:
    """Kill `longfolio run`: nothing of it lives on, and `longfolio resume latest` finishes it."""
    process = world.start("run", str(bench.config))
    wait(lambda: reached(world, case.during), START_SECONDS, f"the {case.during}")
    clock, before = kill(world, case.victims)
    process.wait(5)
    seconds, result.orphans = world.wait_gone(20.0)
    result.notes["all_gone_seconds"] = seconds
    repaired(bench, world, result, clock, before, world.tool("resume", "latest"))


def repaired(bench: Bench, world: World, result: Result, clock: Clock, before: Moment, command: list[str]) -> None:
    """Another command ends well and leaves every state final; a server is kept meanwhile to look at it."""
    first = list_runs(world.store)[-1].data["flow_runs"][0]
    result.notes["first_run_before"] = ""
    with world.environ(), joined(world.store.root) as url:
        api = Api(url)
        result.notes["first_run_before"] = (api.state(first) or {}).get("name")
        code = subprocess.run(command, env=world.environment, capture_output=True, timeout=FINAL_SECONDS).returncode
        result.end_state = "Completed" if code == 0 else f"exit code {code}"
        result.end_seconds = clock()
        state = api.state(first) or {}
        result.notes["first_run_after"] = f"{state.get('name')}: {state.get('message')}"
        api.wait_settled(result)
        bench.compare(world, result, before)
    result.gone_seconds, result.left = world.wait_gone(GONE_SECONDS)


UNDER_UP = (
    ("conversion", "flow process"), ("conversion", "worker"), ("conversion", "server"),
    ("training", "flow process"), ("training", "trainer"), ("training", "worker"), ("training", "server"),
)  # fmt: skip
CASES = (
    *(Case(f"{during}-{victim.split()[0]}", during, (victim,), under_up) for during, victim in UNDER_UP),
    Case("conversion-flow-worker", "conversion", ("worker", "flow process"), under_up),
    Case("training-flow-worker", "training", ("worker", "flow process"), under_up),
    Case("start-flow-worker", "start", ("worker", "flow process"), under_up),
    Case("training-up", "training", ("up",), up_itself),
    Case("cli-server", "training", ("server",), command_server),
    Case("cli-run", "training", ("command",), command_itself),
)


HEAD = (
    f"{'case':<23} {'restarted':>9} {'final':>7} {'as':<12} {'retries':>7}  {'end':<10} {'seconds':>7} "
    f"{'outputs':<8} {'units':>5} {'steps':>5} {'not final':>9} {'settled':>7} {'orphans':>7} {'gone':>6}"
)


def show(result: Result) -> None:
    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    print(
        f"{result.case:<23} {seconds(result.restarted_seconds):>9} {seconds(result.final_seconds):>7} "
        f"{result.final_state:<12} {result.retries:>7}  {result.end_state:<10} {seconds(result.end_seconds):>7} "
        f"{'equal' if not result.differs and not result.error else 'DIFFERS':<8} {result.units_again:>5} "
        f"{result.steps_again:>5} {len(result.not_final):>9} {seconds(result.settled_seconds):>7} "
        f"{len(result.orphans) + len(result.left):>7} "
        f"{seconds(result.gone_seconds):>6}  {'ok' if result.good else 'NOT OK'}",
        flush=True,
    )
    for name in ("error", "differs", "not_final", "orphans", "left"):
        if value := getattr(result, name):
            print(f"    {name}: {value}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", default=[], choices=[c.name for c in CASES], metavar="CASE")
    parser.add_argument("--keep", action="store_true", help="keep stores, databases and logs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kill_prefect.json")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    work = Path(tempfile.mkdtemp(prefix="longfolio-kill-prefect-"))
    bench = Bench(work)
    print(f"undisturbed run{f', in {work}' if args.keep else ''}", flush=True)
    bench.prepare()
    print(HEAD, flush=True)
    results = []
    for case in CASES:
        if not args.only or case.name in args.only:
            results.append(bench.carry(case))
            show(results[-1])
    write(args, bench, results)
    if not args.keep:
        shutil.rmtree(work)
    sys.exit(0 if all(r.good for r in results) else 1)


def write(args: argparse.Namespace, bench: Bench, results: list[Result]) -> None:
    """The results as JSON; those of other cases, from an earlier call, stay."""
    known = {row["case"]: row for row in (read_json(args.out) or {}).get("cases", [])} if args.only else {}
    known |= {r.case: {**asdict(r), "good": r.good} for r in results}
    report = {
        "command": "benchmarks/kill_prefect.py", "config": {**CONFIG, "pdfs": ["examples/pdfs"]},
        "undisturbed_seconds": bench.seconds, "cases": [known[c.name] for c in CASES if c.name in known],
        "good": all(row["good"] for row in known.values()), "sha256": bench.reference,
    }  # fmt: skip
    # Messages may hold addresses of this machine.
    text = json.dumps(report, indent=1).replace(str(bench.work), "WORK").replace(str(ROOT), "ROOT")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
