"""Two processes (gloo, CPU) train what one trains, with DDP and with DeepSpeed's ZeRO."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ranks
import torch
from safetensors.torch import load_file
from train_options import SMALL

from flows.child import ChildFailed, run_in_child
from flows.stages import STAGES, stage_index
from longlora.errors import UserError
from longlora.models import load_model, load_tokenizer
from longlora.train import data, launch
from longlora.train.loss import chunk_count
from longlora.train.settings import TrainSettings

OPTIONS = {
    **SMALL,
    "global_batch_size": 4,
    "max_steps": 6,
    "dtype": "float32",
    "weight_decay": 0.1,
    "learning_rates": {"B": 2e-2, "embed": 1e-3},
}
ZERO = ("zero2", "zero3")


@pytest.fixture(scope="session")
def uneven(tmp_path_factory) -> Path:
    """Rows of very different length: for the long ones the loss takes several chunks, for the short ones one."""
    folder = tmp_path_factory.mktemp("uneven")
    rows = [{"id": f"u{i}", "instruction": "Count.", "output": "kernel " * (2400 if i % 2 else 3)} for i in range(8)]
    (folder / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "train-00000-of-00001.parquet")
    return folder


def curve(work: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (work / "output/metrics.jsonl").read_text().splitlines()]


def weights(work: Path) -> dict[str, torch.Tensor]:
    return load_file(work / "output/adapter/adapter_model.safetensors")


def assert_same(a: Path, b: Path, atol: float = 1e-5) -> None:
    """Loss curves to 1e-6, weights to ``atol``; one line per step; as many tokens.

    DeepSpeed adds up the gradient's norm in float64, torch in float32: at 3.5 million entries that is 3e-5.
    """
    assert [line["step"] for line in curve(a)] == [line["step"] for line in curve(b)]
    for key, rel in {"loss": 1e-6, "grad_norm": 1e-4, "learning_rate": 1e-9, "tokens": 0}.items():
        assert [line[key] for line in curve(a)] == pytest.approx([line[key] for line in curve(b)], rel=rel), key
    left, right = weights(a), weights(b)
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def succeed(*args, **settings) -> str:
    done = ranks.run(*args, **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory, dataset, tiny_model_dir) -> Path:
    """The undisturbed run on one device."""
    work = tmp_path_factory.mktemp("alone") / "work"
    succeed(dataset, tiny_model_dir, work, **OPTIONS)
    return work


@pytest.mark.parametrize("strategy", ["ddp", *(pytest.param(name, marks=pytest.mark.slow) for name in ZERO)])
def test_two_processes_do_what_one_does(tmp_path, alone, dataset, tiny_model_dir, strategy):
    if strategy in ZERO:
        pytest.importorskip("deepspeed")
    work = tmp_path / "two"
    log = succeed(
        dataset, tiny_model_dir, work, **OPTIONS, devices=2, strategy=strategy, save_every_steps=2, micro_batch_size=1
    )
    assert_same(work, alone)
    assert log.count("steps 6 ") == 1  # the first process alone reports
    layout = json.loads((work / "checkpoints/step-00000004/manifest.json").read_text())["layout"]
    assert layout == {"world": 2, "strategy": strategy}
    # The base moved, and every group did: an untrained group would pass unseen in a comparison alone.
    start = tmp_path / "start"
    succeed(dataset, tiny_model_dir, start, **{**OPTIONS, "max_steps": 1})  # warm-up begins at rate 0
    first, last = weights(start), weights(work)
    assert all(not torch.equal(first[name], last[name]) for name in first)


WATCHED = """
import json, os, sys
from pathlib import Path
os.environ["DS_ACCELERATOR"] = "cpu"
import deepspeed, torch
from longlora.train.__main__ import main

moved, gathered = [0], [0]
to, Gathered = torch.nn.Module.to, deepspeed.zero.GatheredParameters

def watched(module, *args, **kwargs):
    moved.append(sum(p.numel() for p in module.parameters()))
    return to(module, *args, **kwargs)

class WatchedGathered(Gathered):
    def __init__(self, params, *args, **kwargs):
        gathered.append(len(list(params)))
        super().__init__(params, *args, **kwargs)

torch.nn.Module.to, deepspeed.zero.GatheredParameters = watched, WatchedGathered
code = main(sys.argv[2:])
found = {"parameters at once to the device": max(moved), "gathered together": max(gathered)}
Path(sys.argv[1] + os.environ["RANK"]).write_text(json.dumps(found))
sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lora", [True, False])
def test_zero3_has_no_device_hold_the_whole_model(tmp_path, dataset, tiny_model_dir, lora):
    """Not at the start, not for a checkpoint, not for the output; and what is trained stays what one process trains."""
    pytest.importorskip("deepspeed")
    options = {**OPTIONS, "max_steps": 3, "save_every_steps": 1}
    if not lora:
        options |= {"lora": None, "learning_rates": {}}
    succeed(dataset, tiny_model_dir, tmp_path / "one", **options)
    script, work = tmp_path / "watched.py", tmp_path / "two"
    script.write_text(WATCHED)
    _, _, _, *arguments = ranks.command(dataset, tiny_model_dir, work, **options, devices=2, strategy="zero3")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "seen"), *arguments],
        env=ranks.environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in "01":
        seen = json.loads((tmp_path / f"seen{rank}").read_text())
        assert seen["parameters at once to the device"] < 1000, seen  # LoRA's matrices as PEFT makes them
        assert seen["gathered together"] == 1
    if lora:
        assert_same(work, tmp_path / "one")
    for left in sorted((tmp_path / "one/output").rglob("*.safetensors")):
        a, b = load_file(left), load_file(work / left.relative_to(tmp_path / "one"))
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
    last = [load_file(tmp_path / run / "checkpoints/step-00000003/trained.safetensors") for run in ("one", "two")]
    assert last[0].keys() == last[1].keys() and all(last[0][n].shape == last[1][n].shape for n in last[0])


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", *ZERO])
def test_a_killed_process_ends_all_and_the_run_goes_on(tmp_path, alone, dataset, tiny_model_dir, strategy):
    if strategy in ZERO:
        pytest.importorskip("deepspeed")
    work = tmp_path / "two"
    options = {**OPTIONS, "devices": 2, "strategy": strategy, "save_every_steps": 1}
    process, children = started(work, ranks.command(dataset, tiny_model_dir, work, **options))
    children[1].kill()
    assert process.wait(60) != 0
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive and not (work / "output").exists()
    log = succeed(dataset, tiny_model_dir, work, **options)
    assert json.loads((work / "result.json").read_text())["metrics"]["resumed_from"] >= 1, log
    assert_same(work, alone)


def started(work: Path, command: list[str]) -> tuple[subprocess.Popen, list[psutil.Process]]:
    """The command once it has a checkpoint, with its two ranks in order."""
    process = subprocess.Popen(command, env=ranks.environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(work.glob("checkpoints/step-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    found = {}
    for child in psutil.Process(process.pid).children():
        found[child.environ().get("RANK")] = child
    return process, [found["0"], found["1"]]


@pytest.mark.slow
def test_ranks_end_with_the_launcher(tmp_path, dataset, tiny_model_dir):
    work = tmp_path / "two"
    options = {**OPTIONS, "devices": 2, "save_every_steps": 1, "max_steps": 500}
    process, children = started(work, ranks.command(dataset, tiny_model_dir, work, **options))
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


@pytest.mark.slow
def test_sigterm_of_one_rank_stops_all_after_a_checkpoint(tmp_path, dataset, tiny_model_dir):
    work = tmp_path / "two"
    options = {**OPTIONS, "devices": 2, "max_steps": 500}
    command = ranks.command(dataset, tiny_model_dir, work, **options, save_every_steps=1)
    process, children = started(work, command)
    children[1].send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    steps = sorted(work.glob("checkpoints/step-*"))
    lines = (work / "metrics.jsonl").read_text().splitlines()
    assert len(lines) < 500 and json.loads((steps[-1] / "manifest.json").read_text())["step"] == len(lines)
    assert not list(work.glob("checkpoints/.step*"))


@pytest.mark.slow
def test_another_number_of_devices(tmp_path, alone, dataset, tiny_model_dir):
    """DDP goes on with any; each leg ends where it is killed after a checkpoint, the last at the end."""
    work = tmp_path / "work"
    options = {**OPTIONS, "save_every_steps": 2}
    for devices, until in ((1, 2), (2, 4), (1, None)):
        stop_at(work, until, dataset, tiny_model_dir, **options, devices=devices)
    assert json.loads((work / "result.json").read_text())["metrics"]["resumed_from"] >= 4
    assert_same(work, alone)


def stop_at(work: Path, step: int | None, *inputs: Path, **options) -> None:
    """Run until there is a checkpoint of ``step``, then kill; or to the end."""
    if step is None:
        succeed(*inputs, work, **options)
        return
    process = subprocess.Popen(ranks.command(*inputs, work, **options), env=ranks.environment())
    while process.poll() is None and not (work / f"checkpoints/step-{step:08d}").exists():
        time.sleep(0.005)
    process.kill()
    process.wait()


@pytest.mark.slow
def test_zero_on_another_number_of_devices_is_refused(tmp_path, dataset, tiny_model_dir):
    pytest.importorskip("deepspeed")
    work = tmp_path / "work"
    options = {**OPTIONS, "save_every_steps": 1}
    stop_at(work, 2, dataset, tiny_model_dir, **options, devices=2, strategy="zero2")
    done = ranks.run(dataset, tiny_model_dir, work, **options)
    assert done.returncode == 1
    assert "2 processes with zero2" in done.stderr and "1 process with ddp" in done.stderr
    assert "set train.devices to 2" in done.stderr and list(work.glob("checkpoints/step-*"))


@pytest.mark.slow
def test_ranks_with_different_labels_do_not_wait_for_ever(tmp_path, uneven, tiny_model_dir):
    pytest.importorskip("deepspeed")
    options = {**OPTIONS, "context_length": 4096, "row_tokens": 2600, "packing": False, "global_batch_size": 2}
    options |= {"max_steps": 4, "group": 128}
    head = load_model(tiny_model_dir, dtype="float32").get_output_embeddings()
    rows = stream_of(uneven, tiny_model_dir, tmp_path, 2600, 8, packing=False)
    counts = [chunk_count(torch.from_numpy(row[0].labels)[None], head) for row in rows]
    assert any(first != second for first, second in zip(counts[::2], counts[1::2], strict=True)), counts
    succeed(uneven, tiny_model_dir, tmp_path / "one", **options)
    succeed(uneven, tiny_model_dir, tmp_path / "two", **options, devices=2, strategy="zero3")
    # Sums over thousands of tokens round otherwise, and Adam makes a step of every gradient however small.
    assert_same(tmp_path / "two", tmp_path / "one", atol=2e-4)


@pytest.mark.slow
def test_not_finite_on_two_processes(tmp_path, dataset, tiny_model_dir):
    options = {**OPTIONS, "learning_rate": 1e30, "learning_rates": {}, "warmup_steps": 0, "devices": 2}
    done = ranks.run(dataset, tiny_model_dir, tmp_path / "work", **options)
    assert done.returncode == 1 and done.stderr.count("the last checkpoint is from before") == 1
    report = json.loads((tmp_path / "work/not_finite.json").read_text())
    assert len(report["rows"]) == 2 and all(len(rank) == 2 for rank in report["rows"])
    first = 4 * (report["step"] - 1)
    rows = stream_of(dataset, tiny_model_dir, tmp_path, 96, first + 4)[first:]
    dealt = [[[sample.id for sample in row] for row in rows[rank::2]] for rank in (0, 1)]
    assert report["rows"] == dealt and report["step"] >= 2 and report["value"] in ("nan", "inf")


def stream_of(dataset: Path, model: Path, folder: Path, row_tokens: int, count: int, packing: bool = True) -> list:
    """The first rows of a training, in order."""
    samples = data.sft_samples(dataset, load_tokenizer(model), "chat", row_tokens, folder / "stream")
    return list(data.stream(data.make_rows(samples, row_tokens, packing), count, seed=0))


# ------------------------------------------------------------------ as a stage of the pipeline


def in_child(work: Path, dataset: Path, model: Path, report=lambda event, **fields: None, **settings):
    work.mkdir(parents=True, exist_ok=True)
    stage = STAGES[stage_index("train")]
    inputs = {"datasets_build": dataset, "model": model}
    return run_in_child(stage, TrainSettings(**{**OPTIONS, "devices": 2, **settings}), inputs, work, report)


@pytest.mark.slow
def test_the_pipeline_starts_two_processes(tmp_path, alone, dataset, tiny_model_dir):
    events: list[dict] = []
    metrics = in_child(tmp_path / "two", dataset, tiny_model_dir, lambda event, **fields: events.append(fields))
    assert metrics["steps"] == 6
    assert [e["done"] for e in events if e.get("unit") == "steps"] == list(range(7))
    assert_same(tmp_path / "two", alone)


@pytest.mark.slow
def test_the_pipeline_says_what_ended_a_process(tmp_path, dataset, tiny_model_dir):
    work = tmp_path / "two"

    def kill(event, **fields):
        if fields.get("done") == 2:
            agent = next(p for p in psutil.Process().children() if str(work) in " ".join(p.cmdline()))
            next(p for p in agent.children() if p.environ().get("RANK") == "1").kill()

    with pytest.raises(ChildFailed, match="killed"):
        in_child(work, dataset, tiny_model_dir, kill, max_steps=500)
    with pytest.raises(ChildFailed, match="cannot be shared by 2 devices") as caught:
        in_child(work, dataset, tiny_model_dir, global_batch_size=3)
    assert "global_batch_size" in (caught.value.remedy or "")
    with pytest.raises(ChildFailed, match="longer than a training row") as caught:  # in the ranks
        in_child(work, dataset, tiny_model_dir, row_tokens=16)
    assert "row_tokens" in (caught.value.remedy or "")


# ------------------------------------------------------------------ what rank 0 does alone, and what only another meets

SLOW_MAIN = """
import sys, time
from datetime import timedelta
from pathlib import Path
import torch
from longlora.train import distributed

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
(folder / f"ready-{rank}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.01)
distributed.TIMEOUT = timedelta(seconds=3)
distributed.start("cpu")

def slow():
    if distributed.is_main():
        time.sleep(5)
    return distributed.rank()

with distributed.main_first():
    slow()
assert distributed.from_main(slow) == 0
slow()
distributed.after_main()
if sys.argv[3] == "collective":
    slow()
    distributed.barrier()
print("done")
"""


def two_ranks(tmp_path: Path, *arguments: str) -> list[tuple[int, str]]:
    """Exit code and output of two processes that make a group."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "ranks.py").write_text(SLOW_MAIN)
    processes = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "ranks.py"), str(tmp_path), str(rank), *arguments],
            env=ranks.environment()
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
            | {"MASTER_PORT": str(port)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    return [(p.wait(), said) for p in processes for said in [p.communicate(timeout=120)[0]]]


def test_the_others_wait_for_the_first_however_long(tmp_path):
    """Longer than a collective would."""
    for code, said in two_ranks(tmp_path, ""):
        assert code == 0 and said.endswith("done\n"), said


@pytest.mark.slow
def test_a_collective_would_not(tmp_path):
    """The test above means something: here rank 1 gives up."""
    code, said = two_ranks(tmp_path, "collective")[1]
    assert code != 0 and "imed out" in said


MEETS = """
import os, sys
from longlora.errors import UserError
from longlora.train import stage
from longlora.train.__main__ import main

def fail(*args, **kwargs):
    if os.environ["RANK"] in WHO:
        raise UserError("this folder cannot be read here", "mount it")
    return choose(*args, **kwargs)

choose, stage.choose_template = stage.choose_template, fail
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("who", ["1", "01"])
def test_an_error_of_any_process_is_said_once(tmp_path, dataset, tiny_model_dir, who):
    script = tmp_path / "meets.py"
    script.write_text(MEETS.replace("WHO", repr(who)))
    _, _, _, *arguments = ranks.command(dataset, tiny_model_dir, tmp_path / "two", **OPTIONS, devices=2)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*torchrun, *arguments],
        env=ranks.environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode != 0 and done.stderr.count("this folder cannot be read here\nmount it") == 1, done.stderr
    assert f"rank {who[-1]}: this folder" in done.stderr or who == "01"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", *ZERO])
def test_after_the_last_step_only_the_output_is_made_again(tmp_path, dataset, tiny_model_dir, strategy):
    if strategy in ZERO:
        pytest.importorskip("deepspeed")
    work = tmp_path / "two"
    options = {**OPTIONS, "max_steps": 3, "devices": 2, "strategy": strategy}
    succeed(dataset, tiny_model_dir, work, **options)
    before, lines = weights(work), (work / "output/metrics.jsonl").read_text()
    shutil.rmtree(work / "output")
    log = succeed(dataset, tiny_model_dir, work, **options)
    assert "steps " not in log and (work / "output/metrics.jsonl").read_text() == lines
    assert json.loads((work / "result.json").read_text())["metrics"]["resumed_from"] == 3
    after = weights(work)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


# ------------------------------------------------------------------ what cannot be


def test_a_batch_that_cannot_be_shared_is_refused():
    settings = TrainSettings(global_batch_size=6, devices=4)
    with pytest.raises(UserError, match=r"6.*4 devices") as caught:
        launch.command(settings, [])
    assert "4 or 8" in caught.value.remedy
    assert launch.accumulation(settings, 3) == 2


def test_one_process_cannot_be_two(train, tmp_path):
    with pytest.raises(UserError, match="devices is 2"):
        train(tmp_path, devices=2, max_steps=1)
    with pytest.raises(UserError, match="zero3 needs"):
        train(tmp_path, strategy="zero3", max_steps=1)
