"""``longfolio train``: the stage alone, and its estimate, as a person and as a script meet them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app

MODEL = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 11008,
         "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
         "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}  # fmt: skip


@pytest.fixture
def longfolio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command in this process, in an empty directory."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*args: str | Path) -> Result:
        return CliRunner().invoke(app, [str(a) for a in args])

    return run


@pytest.fixture
def seven_b(tmp_path: Path) -> str:
    folder = tmp_path / "llama-2-7b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(MODEL))
    return f"model.path={folder}"


def test_estimate_of_a_recipe_that_does_not_fit(longfolio, seven_b: str) -> None:
    command = ("train", "llama2-7b-sft-16k", "--set", seven_b, "--estimate", "--device", "RTX 4080 16GB")
    shown = longfolio(*command)
    assert shown.exit_code == 0, shown.output
    for text in (
        "weights",
        "trained",
        "checkpoints",
        "loss",
        "peak",
        "does not fit",
        "--set train.",
        "a step",
        "assumed",
    ):
        assert text in shown.output, shown.output
    told = json.loads(longfolio(*command, "--json").stdout)
    assert not told["fits"] and told["advice"]["found"] and told["advice"]["set"]
    narrow = told["advice"]["device_bytes"] > 0.9 * told["device"]["memory_bytes"]
    assert told["advice"]["narrow"] is narrow and ("(narrowly)" in shown.output) is narrow
    options = [x for pair in told["advice"]["set"] for x in ("--set", pair)]
    again = json.loads(longfolio(*command, *options, "--json").stdout)
    assert again["fits"] and again["advice"] is None  # the advice holds
    assert again["memory"]["device_bytes"] == told["advice"]["device_bytes"]
    assert not Path("store").exists()


def test_estimate_adds_up(longfolio, seven_b: str) -> None:
    told = json.loads(
        longfolio("train", "llama2-7b-sft-16k", "--set", seven_b, "--estimate", "--device", "H200", "--json").stdout
    )
    parts = {p["name"]: p["device_bytes"] for p in told["memory"]["parts"]}
    assert told["fits"] and told["parameters"]["base"] == 6_738_415_616 and told["row_tokens"] == 16384
    assert sum(parts.values()) - min(parts["layers"], parts["loss"]) <= told["memory"]["device_bytes"] < 141e9
    time = told["time"]
    assert time["step_seconds"] == pytest.approx(time["flops_per_step"] / (989e12 * time["efficiency"]))
    assert time["tokens_per_second"] == pytest.approx(64 * 16384 / time["step_seconds"])


def test_estimate_for_this_machine(longfolio) -> None:
    told = json.loads(
        longfolio(
            "train", "demo", "--set", "train.device=cpu", "--set", "train.dtype=float32", "--estimate", "--json"
        ).stdout
    )
    assert told["device"]["kind"] == "cpu" and told["device"]["peak_source"] == "measured" and told["fits"]
    assert told["time"]["steps"] == 20 and told["time"]["total_seconds"] == 20 * told["time"]["step_seconds"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "demo", "--device", "H100"], "--device is for --estimate"),
        (["train", "demo", "--estimate", "--device", "Prototype 7"], "how much memory"),
        (
            ["train", "demo", "--estimate", "--set", "model=nobody/no-such-model"],
            "nobody/no-such-model is not to be had",
        ),
        (["train", "demo", "--estimate", "--set", "model.path=nowhere"], "does not exist"),
        (["train", "no-such-recipe", "--estimate"], "no-such-recipe"),
        (["train", "demo"], "--from train"),
    ],
)
def test_mistakes(longfolio, args: list[str], message: str) -> None:
    done = longfolio(*args)
    assert done.exit_code == 2 and message in done.stderr and "do:" in done.stderr and not done.stdout


def test_trains_on_the_dataset_in_the_store(longfolio, small_run) -> None:
    config = small_run()
    assert longfolio("run", config, "--until", "datasets_build", "--no-prefect").exit_code == 0
    known = json.loads(longfolio("train", config, "--estimate", "--device", "H100", "--json").stdout)
    assert "the dataset in the store" in known["data"] and known["time"]["efficiency_source"] == "assumed"
    done = longfolio("train", config, "--no-prefect", "--json")
    assert done.exit_code == 0, done.stderr
    stages = {s["stage"]: s for s in json.loads(done.stdout)["stages"]}
    assert {name: s["action"] for name, s in stages.items()} == {
        "pdf2txt": "cached", "datasets_build": "cached", "train": "ran", "merge": "skipped", "evaluate": "skipped",
    }  # fmt: skip
    output = Path(stages["train"]["path"])
    assert (output / "loss.svg").is_file()
    # now there is a training to learn the efficiency from
    told = json.loads(longfolio("train", config, "--estimate", "--json").stdout)
    assert told["time"]["efficiency_source"].startswith("measured")
    assert longfolio("train", config, "--no-prefect").exit_code == 0  # cached, and shown
