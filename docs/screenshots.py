"""Click through the Prefect UI of a store as a person would, check what comes of it, and take the pictures.

    python docs/screenshots.py [--store DIR] [--only NAME]...

Starts `longfolio up`, then drives a headless Chromium: every run is started, cancelled and retried by clicks.
What is not as expected is told and the exit code is 1. The pictures go to docs/images/. The demo's model is real,
so all of it takes about ten minutes on 2 cores.

Without --store all is made in a temporary directory and removed at the end; with it, the store and the server's
database (DIR-state) stay, so that --only can repeat a part. Needs Chromium (CHROMIUM=/path, by default that of
Debian) and Playwright, whose own browsers are not needed: pip install playwright
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from PIL import Image
from playwright.sync_api import Error as BrowserError
from playwright.sync_api import Locator, Page, Route, sync_playwright

from flows.orchestration.server import Home, read_json

IMAGES = Path(__file__).parent / "images"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
WIDTH, HEIGHT, TALLEST = 1440, 900, 3200
MOST_BYTES = 300_000
STAGES = ("pdf2txt", "datasets_build", "train", "merge", "evaluate")
FINAL = ("Completed", "Failed", "Crashed", "Cancelled")

LIGHT = ("train.max_steps=4",)
STEPS, CANCEL_AT = 24, 8  # of the training that is cancelled
GONE_SECONDS = 40.0  # after Cancel, no process of the run is left


class Unexpected(Exception):
    """Something is not as it should be."""


def expect(holds: object, message: str) -> None:
    """Raises:
    Unexpected: with the message, unless it holds.
    """
    if not holds:
        raise Unexpected(message)


# ------------------------------------------------------------------------------------------- the store


class Longfolio:
    """`longfolio up` for a store, with a state directory of its own."""

    def __init__(self, store: Path, state: Path) -> None:
        self.store = store
        self.fresh = not (store / "stages").exists()
        os.environ["XDG_STATE_HOME"] = str(state)
        self.ui = ""

    def up(self) -> None:
        said = self._command("up", "--detach", "--port", "0")
        found = re.search(r"http://\S+", said)
        expect(found, f"`longfolio up` gave no address: {said}")
        self.ui = found[0] if found else ""

    def down(self) -> None:
        self._command("down")

    def promote(self) -> None:
        """Make the model of the oldest finished run the champion."""
        records = [json.loads(file.read_text()) for file in sorted((self.store / "runs").glob("*.json"))]
        done = [
            r["run_id"] for r in records if r["status"] == "done" and r["stages"][-1]["action"] in ("ran", "cached")
        ]
        expect(done, "no run has a model to promote")
        self._command("promote", done[0])

    def _command(self, name: str, *arguments: str) -> str:
        tool = Path(sys.executable).parent / "longfolio"
        done = subprocess.run(
            [tool, name, *arguments, "--store", self.store], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        expect(done.returncode == 0, f"longfolio {name}: {done.stdout}{done.stderr}")
        return done.stdout

    def run_processes(self) -> list[psutil.Process]:
        """What the workers have started: flow runs and their children."""
        note = read_json(Home.of(self.store).path / "up.json")
        workers = psutil.Process(note["pid"]).children() if note else []
        found = []
        for worker in workers:
            with suppress(psutil.Error):
                if "worker" in worker.cmdline():
                    found += worker.children(recursive=True)
        return found

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """The API, beside the UI: what a picture does not show."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.ui}/api{path}", data, {"Content-Type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return json.load(answer)

    def metrics(self, digest: str = "*") -> list[dict[str, Any]]:
        """Lines of the newest ``metrics.jsonl`` of a training in progress, or of a finished one by its digest."""
        folder = "work/train/*" if digest == "*" else f"stages/train/{digest}"
        files = sorted(self.store.glob(f"{folder}/metrics.jsonl"), key=lambda f: f.stat().st_mtime)
        lines = files[-1].read_text().splitlines() if files else []
        return [json.loads(line) for line in lines]

    def checkpoints(self) -> list[Path]:
        """Of the training in progress, oldest first."""
        return sorted(self.store.glob("work/train/*/checkpoints/step-*"), key=lambda f: f.stat().st_mtime)


# ------------------------------------------------------------------------------------------- the browser


class Ui:
    """The UI in a browser: only clicks and looks. Nothing but the server is asked for anything."""

    def __init__(self, page: Page, longfolio: Longfolio) -> None:
        self.page, self.longfolio = page, longfolio
        self.foreign: Counter[str] = Counter()
        self.taken: list[str] = []
        page.route(lambda url: not url.startswith(longfolio.ui), self._refuse)
        page.goto(longfolio.ui)

    def _refuse(self, route: Route) -> None:
        self.foreign[urlsplit(route.request.url).hostname or ""] += 1
        route.abort()

    @property
    def main(self) -> Locator:
        return self.page.locator("main")

    def menu(self, name: str) -> None:
        """An entry of the menu on the left."""
        self.page.get_by_role("link", name=name, exact=True).first.click()
        self.settle()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()
        self.settle()

    def act(self, name: str) -> None:
        """An entry of the menu with the three dots, and Yes to the question that follows."""
        self.page.locator("main").get_by_role("button", name="Open menu").first.click()
        self.page.get_by_role("menuitem", name=name, exact=True).click()
        question = self.page.get_by_role("alertdialog")
        question.get_by_role("button", name=re.compile(f"^{name}")).last.click()
        question.wait_for(state="hidden")

    def settle(self, seconds: float = 1.2) -> None:
        """Until nothing is loaded or moves any more."""
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_timeout(1000 * seconds)

    def reload(self) -> None:
        self.page.reload()
        self.settle(2)

    # ------------------------------------------------------------------ runs

    def form(self, flow: str) -> None:
        """The form of a custom run, from the list of deployments."""
        self.menu("Deployments")
        row = self.page.get_by_role("row").filter(has=self.page.get_by_text(flow, exact=True))
        row.get_by_role("link").first.click()
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Custom run").click()
        self.page.get_by_role("heading", name="Parameters").wait_for()
        self.settle()

    def fill(self, recipe: str, settings: tuple[str, ...]) -> None:
        self.page.get_by_role("textbox", name=re.compile("^Recipe")).fill(recipe)
        title = self.main.get_by_text(re.compile("^Settings")).first
        for number, setting in enumerate(settings):
            title.locator("xpath=following::button[normalize-space()='Add item'][1]").click()
            handle = self.page.get_by_role("button", name="Drag to reorder").nth(number)
            handle.locator("xpath=..").get_by_role("textbox").fill(setting)

    def submit(self) -> str:
        """Start what the form says and look at the run; returns its id."""
        self.page.get_by_role("button", name="Submit").click()
        self.page.get_by_role("button", name="View run").click()
        self.page.wait_for_url(re.compile("/flow-run/"))
        return re.findall(r"/flow-run/([0-9a-f-]+)", self.page.url)[0]

    def start(self, flow: str, settings: tuple[str, ...] = ()) -> str:
        self.form(flow)
        if settings:
            self.fill("demo", settings)
        return self.submit()

    def state(self) -> str:
        """What stands beside the name of the run."""
        words = self.main.inner_text().split("\n")[:10]
        return next((word for word in words if word in (*FINAL, "Running", "Cancelling")), "")

    def wait_for(self, wanted: str, seconds: float, run: str) -> None:
        """Look at the page of a run until it says the state; a run that is wanted Running may be Completed.

        Raises:
            Unexpected: another final state, or none in time.
        """
        deadline = time.monotonic() + seconds
        enough = {"Running", "Completed"} if wanted == "Running" else {wanted}
        while (state := self.state()) not in enough:
            if state in FINAL or time.monotonic() > deadline:
                message = self.longfolio.ask(f"/flow_runs/{run}")["state"]["message"]
                raise Unexpected(f"the run is {state or 'not started'} ({message}), not {wanted} in {seconds:.0f} s")
            self.page.wait_for_timeout(500)

    def task_runs(self) -> list[tuple[str, str]]:
        """Name and state of each in the tab of the run, oldest first."""
        self.tab("Task Runs")
        found = []
        rows = self.page.get_by_role("tabpanel", name="Task Runs").locator("li:has(nav)")
        rows.first.wait_for()
        for row in rows.all():
            lines = row.inner_text().split("\n")
            state = next((line for line in lines if line in ("Cached", *FINAL, "Running", "Pending")), "?")
            name = row.get_by_role("link", name=re.compile(r"\w")).last.inner_text()
            found.append((name, state))
        return found[::-1]

    def artifact(self, run: str, key: str) -> None:
        """The artifact of a run, from the tab of the run: its card, then the version that is this run's."""
        self.open_run(run, "Artifacts")
        self.page.get_by_role("link", name=re.compile(rf"^MARKDOWN {key} ")).last.click()
        wanted = {"flow_run_id": {"any_": [run]}, "key": {"any_": [key]}}
        newest = self.longfolio.ask("/artifacts/filter", {"artifacts": wanted, "sort": "CREATED_DESC"})[0]
        self.main.locator(f"a[href*='/artifacts/artifact/{newest['id']}']").first.click()
        self.settle(2.5)

    def open_run(self, run: str, tab: str = "") -> None:
        """From the list of runs; its name leads there."""
        self.menu("Runs")
        self.page.locator(f"main a[href$='/flow-run/{run}']").first.click()
        self.page.wait_for_url(re.compile(run))
        self.settle()
        if tab:
            self.tab(tab)

    # ------------------------------------------------------------------ pictures

    def bare_graph(self) -> None:
        """Hide artifacts and events in the graph of a run, by its settings."""
        settings = self.page.locator("main button[data-slot='popover-trigger']").last
        settings.click()
        for name in ("Hide artifacts", "Hide events"):
            switch = self.page.get_by_role("switch", name=name)
            if switch.get_attribute("aria-checked") != "true":
                switch.click()
        settings.click()  # Escape would show the graph in the whole window
        self.settle()

    def shot(self, name: str, whole: bool = False, crop: tuple[Locator, Locator] | None = None) -> None:
        """Take a picture.

        Args:
            whole: as tall as the page is, within limits, not as the window.
            crop: from the upper left of one element to the lower right of the other.
        """
        if whole or crop:
            tall = self.page.evaluate("document.documentElement.scrollHeight")
            self.page.set_viewport_size({"width": WIDTH, "height": min(max(HEIGHT, tall), TALLEST)})
            self.page.wait_for_timeout(700)
        path = IMAGES / f"{name}.png"
        self.page.mouse.move(WIDTH - 1, 0)
        self.page.screenshot(path=path, clip=_area(*crop) if crop else None)
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        expect(path.stat().st_size < MOST_BYTES, f"{path.name} has {path.stat().st_size:,} bytes")
        self.taken.append(path.name)

    def shot_artifact(self, run: str, key: str, *holds: str) -> None:
        """Open an artifact, see that it is drawn and holds these texts, and take its picture."""
        self.artifact(run, key)
        panel = self.page.get_by_role("tabpanel", name="Artifact")
        panel.get_by_role("heading").first.wait_for()
        text = panel.inner_text()
        for part in holds:
            expect(part in text, f"artifact {key} does not show {part!r}")
        expect("|---" not in text and "```" not in text, f"artifact {key} is not rendered")
        self.shot(f"artifact-{key}", crop=(self.main.get_by_role("navigation").first, panel))


def _area(first: Locator, last: Locator) -> Any:
    start, end = first.bounding_box(), last.bounding_box()
    if not start or not end:
        raise Unexpected("an element of a picture is not there")
    x, y = max(0, start["x"] - 16), max(0, start["y"] - 16)
    right, bottom = end["x"] + end["width"] + 16, min(end["y"] + end["height"] + 16, TALLEST)
    return {"x": x, "y": y, "width": min(right, WIDTH) - x, "height": bottom - y}


# ------------------------------------------------------------------------------------------- the parts


@dataclass
class Tour:
    """What a part needs, and what the parts have seen."""

    ui: Ui
    longfolio: Longfolio
    seen: list[tuple[str, float, str]] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def saw(self, what: str, detail: str = "") -> None:
        now = time.monotonic()
        self.seen.append((what, now - self.since, detail))
        self.since = now
        print(f"  {what:<42} {self.seen[-1][1]:7.1f} s  {detail}", flush=True)


def deployments(tour: Tour) -> None:
    """The list with the nightly schedule, and the automations."""
    ui = tour.ui
    ui.menu("Deployments")
    ui.page.get_by_role("row").nth(6).wait_for()  # a head and 6
    text = ui.main.inner_text()
    for flow in ("end-to-end", "pdf2txt", "datasets-build", "train", "evaluate", "nightly-evals"):
        expect(flow in text, f"no deployment of {flow}")
    nightly = ui.page.get_by_role("row").filter(has_text="nightly-evals").inner_text()
    expect("Active" in nightly and "02:00 AM" in nightly, f"the nightly schedule is not active: {nightly!r}")
    ui.shot("deployments", crop=(ui.main.get_by_role("navigation").first, ui.page.get_by_role("table")))
    ui.menu("Automations")
    ui.main.get_by_text(re.compile("^Longfolio: ")).nth(2).wait_for()
    expect(ui.main.inner_text().count("Longfolio: ") == 3, "there are not 3 automations")
    ui.shot("automations", whole=True)
    tour.saw("deployments, schedule and automations", "6, 02:00, 3")


def end_to_end(tour: Tour) -> None:
    """Everything, from the form to the artifacts."""
    ui = tour.ui
    ui.form("end-to-end")
    ui.fill("demo", LIGHT)
    ui.shot("run-form", whole=True)
    run = ui.submit()
    ui.wait_for("Running", 60, run)
    tour.saw("end-to-end started by the form", run[:8])
    ui.wait_for("Completed", 1200, run)
    allowed = {"Completed"} if tour.longfolio.fresh else {"Completed", "Cached"}
    runs = _stages(ui.task_runs())
    expect(list(runs) == list(STAGES) and set(runs.values()) <= allowed, f"its stages are {runs}")
    ui.reload()
    ui.bare_graph()
    ui.shot("end-to-end", whole=True)
    tour.saw("end-to-end Completed", ", ".join(f"{n} {s}" for n, s in runs.items()))
    _task_run(tour)
    _artifacts(tour, run)


def _stages(task_runs: list[tuple[str, str]]) -> dict[str, str]:
    """State of each stage, in the order of the chain; parts of a stage are left out."""
    named = {name.split()[0]: state for name, state in task_runs}
    return {stage: named[stage] for stage in STAGES if stage in named}


def _task_run(tour: Tour) -> None:
    ui = tour.ui
    ui.tab("Task Runs")
    ui.page.get_by_role("tabpanel", name="Task Runs").get_by_role("link", name=re.compile("^train")).first.click()
    ui.page.wait_for_url(re.compile("/task-run/"))
    ui.settle()
    expect("Finished in state" in ui.main.inner_text(), "the log of the task run is empty")
    ui.shot("task-run")
    tour.saw("task run of train, with its log")


def _artifacts(tour: Tour, run: str) -> None:
    ui = tour.ui
    ui.open_run(run, "Artifacts")
    panel = ui.page.get_by_role("tabpanel", name="Artifacts")
    panel.get_by_role("heading", name="run-summary").wait_for()
    ui.shot("artifacts", crop=(ui.page.get_by_role("tablist").first, panel))
    ui.shot_artifact(run, "plan", "Plan: ", *STAGES)
    ui.shot_artifact(run, "pdf2txt-report", "pages", "damaged.pdf")
    ui.shot_artifact(run, "dataset", "Dataset", "validation", "█", "Left out")
    ui.shot_artifact(run, "evaluation", "perplexity", "passkey")
    ui.shot_artifact(run, "run-summary", *STAGES, "done")
    tour.saw("artifacts rendered", "plan, pdf2txt-report, dataset, evaluation, run-summary")


def cached(tour: Tour) -> None:
    """The same once more."""
    ui = tour.ui
    run = ui.start("end-to-end", LIGHT)
    ui.wait_for("Completed", 120, run)
    runs = _stages(ui.task_runs())
    expect(list(runs) == list(STAGES) and set(runs.values()) == {"Cached"}, f"its stages are {runs}")
    ui.reload()
    ui.bare_graph()
    ui.shot("cached", whole=True)
    tour.saw("end-to-end again", "5 Cached")


def dataset_only(tour: Tour) -> None:
    ui = tour.ui
    run = ui.start("datasets-build", ("dataset.seed=2",))
    ui.wait_for("Completed", 300, run)
    runs = _stages(ui.task_runs())
    expect(list(runs) == list(STAGES[:2]), f"its stages are {runs}")
    tour.saw("datasets-build Completed", ", ".join(f"{n} {s}" for n, s in runs.items()))


def nightly(tour: Tour) -> None:
    """Two nights of the newest model against the champion, which is that of the first run."""
    ui = tour.ui
    tour.longfolio.promote()
    for night in range(2):
        run = ui.start("nightly-evals")
        ui.wait_for("Completed", 600, run)
        tour.saw(f"nightly-evals Completed, night {night + 1}")
    ui.shot_artifact(run, "evaluation-nightly", "champion", "perplexity")
    ui.shot_artifact(run, "evaluation-history", "Evaluations", "perplexity")
    tour.saw("artifacts rendered", "evaluation-nightly, evaluation-history")


def cancel(tour: Tour) -> None:
    """A training is cancelled, leaves a checkpoint and no process, and a retry goes on from there."""
    ui, longfolio = tour.ui, tour.longfolio
    settings = (f"train.max_steps={STEPS}", "train.global_batch_size=1", f"train.seed={int(time.time()) % 100_000}")
    run = ui.start("train", settings)
    _wait(lambda: len(longfolio.metrics()) >= CANCEL_AT, 600, f"{CANCEL_AT} steps of training")
    tour.saw("train started by the form", f"{CANCEL_AT} of {STEPS} steps")
    step, digest = _cancel(tour, run)
    ui.act("Retry")
    ui.wait_for("Running", 90, run)
    _wait(lambda: (longfolio.metrics() or [{"step": STEPS}])[-1]["step"] > step, 300, "a step after the retry")
    tour.saw("Retry in the UI: it runs", f"goes on after step {step}")
    ui.wait_for("Completed", 900, run)
    _resumed(tour, run, step, digest)


def _cancel(tour: Tour, run: str) -> tuple[int, str]:
    """Returns the step of the newest checkpoint, and the digest of the training."""
    ui, longfolio = tour.ui, tour.longfolio
    processes = longfolio.run_processes()
    words = " ".join(" ".join(p.cmdline()) for p in processes)
    expect("flows.child" in words, f"training has no process of its own: {words}")
    clicked = time.monotonic()
    ui.act("Cancel")
    _, alive = psutil.wait_procs(processes, timeout=GONE_SECONDS)
    gone = time.monotonic() - clicked
    expect(not alive and not longfolio.run_processes(), f"still there after {gone:.0f} s: {alive}")
    tour.saw("Cancel in the UI: its processes are gone", f"{len(processes)} within {gone:.0f} s")
    ui.wait_for("Cancelled", 60, run)
    left = longfolio.checkpoints()
    expect(left, "the cancelled training left no checkpoint")
    last = longfolio.metrics()[-1]["step"]
    step = int(left[-1].name.rpartition("-")[2])
    expect(step == last, f"the newest checkpoint is of step {step}, the last line of metrics.jsonl of step {last}")
    runs = _stages(ui.task_runs())
    expect(runs.get("train") == "Cancelled", f"its stages are {runs}")
    ui.reload()
    ui.bare_graph()
    ui.shot("cancelled")
    tour.saw("the run is Cancelled", f"checkpoint of step {step}")
    return step, left[-1].parents[1].name


def _resumed(tour: Tour, run: str, step: int, digest: str) -> None:
    ui, longfolio = tour.ui, tour.longfolio
    manifest = json.loads((longfolio.store / "stages" / "train" / digest / "manifest.json").read_text())
    found = manifest["metrics"]["resumed_from"]
    expect(found == step, f"the training was resumed from {found}, not from step {step}")
    steps = [line["step"] for line in longfolio.metrics(digest)]
    expect(steps == list(range(1, STEPS + 1)), f"the steps of metrics.jsonl are {steps}")
    ui.reload()
    ui.bare_graph()
    ui.shot("resumed")
    ui.artifact(run, "training-curve")
    expect(ui.main.locator("svg[id^=mermaid], .mermaid svg, pre svg").count(), "the training curve is not drawn")
    ui.shot_artifact(run, "training-curve", f"step {STEPS} of {STEPS}", "loss")
    tour.saw("resumed and Completed", f"resumed_from {found}, {len(steps)} steps, training-curve drawn")


def runs(tour: Tour) -> None:
    """The list of runs, when there is something in it."""
    ui = tour.ui
    ui.menu("Runs")
    ui.settle(2)
    rows = ui.page.get_by_role("tabpanel", name="Flow Runs").locator("li:has(nav)")
    rows.first.wait_for()
    ui.shot("runs", crop=(ui.page.get_by_role("checkbox", name="Toggle all"), rows.last))
    tour.saw("list of runs", f"{rows.count()} runs")


PARTS: dict[str, Callable[[Tour], None]] = {
    "deployments": deployments,
    "end-to-end": end_to_end,
    "cached": cached,
    "dataset-only": dataset_only,
    "nightly": nightly,
    "cancel": cancel,
    "runs": runs,
}


def _wait(holds: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        expect(time.monotonic() < deadline, f"no {what} within {seconds:.0f} s")
        time.sleep(0.5)


# ------------------------------------------------------------------------------------------- all of it


@contextmanager
def browser(longfolio: Longfolio) -> Iterator[Ui]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = chromium.new_page(
            viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light", timezone_id="UTC", locale="en-US"
        )
        yield Ui(page, longfolio)
        chromium.close()


def carry_out(parts: list[str], longfolio: Longfolio) -> list[str]:
    """Take the tour; returns what was not as expected."""
    wrong = []
    with browser(longfolio) as ui:
        tour = Tour(ui, longfolio)
        for name in parts:
            print(name, flush=True)
            try:
                PARTS[name](tour)
            except (Unexpected, BrowserError, psutil.Error) as error:
                said = str(error).split("\nCall log")[0]
                wrong.append(f"{name}: {said}")
                picture = Path(tempfile.gettempdir()) / f"longfolio-failed-{name}.png"
                with suppress(BrowserError):
                    ui.page.screenshot(path=picture)
                    ui.page.goto(longfolio.ui)
                print(f"  NOT AS EXPECTED: {said}\n  see {picture}", flush=True)
        print(f"{len(ui.taken)} pictures in {IMAGES}: {', '.join(ui.taken)}")
        if ui.foreign:
            wrong.append("the UI asked other hosts: " + ", ".join(f"{h} ({n})" for h, n in ui.foreign.items()))
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="kept store (default: a temporary one)")
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be given more than once")
    args = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="longfolio-")) if args.store is None else None
    store = (work / "store" if work else args.store).resolve()
    longfolio = Longfolio(store, store.with_name(store.name + "-state"))
    try:
        longfolio.up()
        wrong = carry_out(args.only or list(PARTS), longfolio)
    except Unexpected as error:
        wrong = [str(error)]
    finally:
        with suppress(Unexpected):
            longfolio.down()
        if work:
            shutil.rmtree(work, ignore_errors=True)
    for line in wrong:
        print(f"NOT AS EXPECTED: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
