"""Asks for a STAGE_VERSION bump: a stage's code changed, so somebody has to decide whether its output did.

If the output changed, raise STAGE_VERSION in the stage's module. Either way, record the decision:

    python tests/flows/test_stage_versions.py
"""

from __future__ import annotations

import json
from pathlib import Path

from flows.stages import STAGES

RECORDED = Path(__file__).with_name("stage_versions.json")


def current() -> dict[str, dict[str, object]]:
    return {s.name: {"version": s.library().STAGE_VERSION, "source_sha256": s.source_sha256()} for s in STAGES}


def test_changed_stage_code_was_considered() -> None:
    recorded = json.loads(RECORDED.read_text())
    now = current()
    changed = [name for name in now if now[name] != recorded.get(name)]
    assert not changed, (
        f"the code of {', '.join(changed)} changed: raise STAGE_VERSION if the same input now gives another output, "
        f"then run: python {RECORDED.with_suffix('.py').parent}/test_stage_versions.py"
    )


def test_every_source_pattern_matches_files() -> None:
    from flows.stages import PACKAGE_ROOT

    for stage in STAGES:
        for pattern in stage.sources:
            assert list(PACKAGE_ROOT.glob(pattern)), f"{stage.name}: {pattern} matches nothing"


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(current(), indent=1) + "\n")
