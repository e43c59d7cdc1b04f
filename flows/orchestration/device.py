"""One run per accelerator: a slot on the server that everyone who uses the device takes."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

USES_DEVICE = ("train", "evaluate")
LEASE_SECONDS = 60.0  # after which the slot of a killed holder is free again


def visible_devices() -> list[str]:
    """Ids of the accelerators that this process may use, as CUDA names them; empty on a machine without."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [item.strip() for item in chosen.split(",") if item.strip() not in ("", "-1")]
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]


def slot_name(device: str) -> str:
    """Of the slot of a device of this machine."""
    return re.sub(r"[^a-z0-9]+", "-", f"gpu-{socket.gethostname()}-{device}".lower()).strip("-")


@contextmanager
def device_slot(stage: str) -> Iterator[None]:
    """Hold the first visible device while ``stage`` runs, if it uses one and there is one.

    Strict: without the slot nothing starts, so two runs never share a device by accident.
    """
    devices = visible_devices() if stage in USES_DEVICE else []
    if not devices:
        yield
        return
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency
    from prefect.exceptions import ObjectAlreadyExists

    name = slot_name(devices[0])
    with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):  # made by another at the same moment
        client.upsert_global_concurrency_limit_by_name(name, 1)
    with concurrency(name, strict=True, lease_duration=LEASE_SECONDS, raise_on_lease_renewal_failure=False):
        yield
