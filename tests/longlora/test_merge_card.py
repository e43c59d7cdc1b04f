"""The card says what the model was made of; the hub can read its head."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from tiny_models import save_base, shake, silent
from transformers import AutoModelForCausalLM

from longlora.adapters import LoraSettings, add_adapters, save_adapter
from longlora.merge import MergeSettings, run
from longlora.merge.origin import base_license, base_name, hub_id
from longlora.train.lineage import dataset_lineage


@pytest.fixture
def dataset(tmp_path) -> Path:
    folder = tmp_path / "dataset"
    (folder / "data").mkdir(parents=True)
    sources = {"doc-a": {"heading": 3}, "doc-b": {"cloze": 1}, "import:0123": {"import": 2}}
    stats = {"row_digest": "d1g3st", "rows": 6, "rows_by_document": sources, "template": "chat"}
    (folder / "stats.json").write_text(json.dumps(stats))
    for split, licences in (("train", ["cc-by-4.0", "mit", "cc-by-4.0"]), ("validation", ["gpl-3.0"])):
        pq.write_table(pa.table({"license": licences}), folder / f"data/{split}-00000-of-00001.parquet")
    return folder


def test_lineage_of_a_dataset(dataset, tmp_path) -> None:
    assert dataset_lineage(dataset) == {
        "row_digest": "d1g3st", "rows": 6, "documents": 2, "licences": {"cc-by-4.0": 2, "mit": 1},
    }  # fmt: skip
    nothing = {"row_digest": None, "rows": None, "documents": None, "licences": None}
    assert dataset_lineage(tmp_path / "of other hands") == nothing


def card_of(tmp_path: Path, base: Path, info: dict) -> ModelCard:
    model = add_adapters(AutoModelForCausalLM.from_pretrained(base), LoraSettings(r=4))
    shake(model)
    save_adapter(model, tmp_path / "train/adapter", base_name="tiny", info=info)
    run(MergeSettings(probe_tokens=16), {"model": base, "train": tmp_path / "train"}, tmp_path / "work", silent)
    return ModelCard.load(tmp_path / "work/output/model/README.md")


def test_card_of_a_hub_model(dataset, tmp_path) -> None:
    base = save_base(tmp_path / "models--some-body--tiny-llama/snapshots/0123abcd", "llama")
    (base / "README.md").write_text("---\nlicense: other\nlicense_name: tiny-1\nlicense_link: LICENSE\n---\n# Tiny\n")
    info = {
        "base_model": {"name": "0123abcd", "files": {}},
        "dataset": dataset_lineage(dataset),
        "settings": {"learning_rate": 2e-5, "quantize": "nf4"},
    }
    card = card_of(tmp_path, base, info)
    head = card.data.to_dict()
    assert head["base_model"] == "some-body/tiny-llama" and head["base_model_relation"] == "finetune"
    assert (head["license"], head["license_name"], head["license_link"]) == ("other", "tiny-1", "LICENSE")
    assert head["library_name"] == "transformers" and "long-context" in head["tags"]
    for said in ("d1g3st", "| rows | 6 |", "| documents | 2; listed in", "cc-by-4.0 (2 rows), mit (1 rows)", "tiny-1",
                 '"learning_rate": 2e-05', '"tolerance": 0.0001', "nf4", "in full precision"):  # fmt: skip
        assert said in card.text, said


def test_card_of_a_local_model_claims_nothing(tmp_path) -> None:
    """No id that the hub does not know, no licence that nobody named."""
    card = card_of(tmp_path, save_base(tmp_path / "my-llama", "llama"), {})
    assert card.data.base_model is None and card.data.license == "unknown"
    assert "does not say what it was trained on" in card.text and "Documents and rows: not recorded" in card.text


def test_origin(tmp_path) -> None:
    embedded = tmp_path / "smollm2-135m-q4-0123456789ab"
    assert base_license(embedded) == {"license": "apache-2.0"} and base_name(embedded, {}) == "smollm2-135m-q4"
    assert hub_id(Path("/cache/models--gpt2/snapshots/0123")) == "gpt2" and hub_id(tmp_path) is None
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\n")
    assert base_license(tmp_path) == {}
