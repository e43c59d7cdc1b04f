"""The small chain as fixtures, and a home for Prefect that is nobody's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from small_chain import small_tree, write_documents


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prefect servers of tests keep their databases here; nothing of the user's own configuration is read."""
    home = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home))
        patch.setenv("PREFECT_HOME", str(home / "prefect"))
        for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "LONGFOLIO_STORE", "LONGFOLIO_ROOT"):
            patch.delenv(name, raising=False)
        yield home


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """A folder with three text documents."""
    return write_documents(tmp_path / "documents")


@pytest.fixture
def small_run(tmp_path: Path, documents: Path, tiny_model_dir: Path) -> Callable[..., Path]:
    """Writes a run file for the small chain; keyword arguments replace whole sections."""

    def write(**sections: object) -> Path:
        path = tmp_path / "small.yaml"
        path.write_text(yaml.safe_dump({**small_tree(documents, tiny_model_dir), **sections}))
        return path

    return write
