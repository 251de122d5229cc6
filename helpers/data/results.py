"""Result files: what was measured, with a card that says how to repeat it."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import torch

from .jsonl import write_json


def write_results(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence], card: dict
) -> Path:
    """Write a results file `{"columns", "rows", "run_card"}`, whole or not at all."""
    content = {"columns": list(columns), "rows": list(rows), "run_card": card}
    return write_json(path, content)


def run_card(command: str, **more) -> dict:
    """What is needed to repeat a run: command, seeds, device, threads, versions."""
    return {
        "command": command,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "versions": {p: metadata.version(p) for p in ("torch", "transformers", "peft")},
        **more,
    }
