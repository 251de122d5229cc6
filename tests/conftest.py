"""Shared by all tests: threads and signals set, the shipped models loaded once."""

import os
import signal

# Tests run side by side, a thread each; what they start inherits it. Read by torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from helpers import models, tracks


@pytest.fixture(scope="session", autouse=True)
def _interrupts():
    """Ctrl-C interrupts, also where a shell started the tests in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def track():
    return tracks.load("tiny")


@pytest.fixture(scope="session")
def teacher(track):
    return models.load_teacher(track)


@pytest.fixture(scope="session")
def student(track):
    return models.load_student(track)


@pytest.fixture(scope="session")
def tokenizer(student):
    return student.tokenizer


@pytest.fixture
def small_model(tokenizer):
    """A Llama of two thin layers with random weights, over the course's vocabulary."""
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    ).eval()
