"""The base in full precision, where a test compares numbers too closely for bf16; and a base with a small pool."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.base_model import BaseFiles, load_unquantized
from adapters.latents import Latents
from adapters.policy import Policy
from feedback.population import Population, load_population
from tests.adapters.jobs import own_base


@pytest.fixture(scope="session")
def loaded_exact(base_files: BaseFiles) -> Policy:
    """The unquantized base in fp32; tests take `exact`, which cleans up."""
    model, tokenizer = load_unquantized(base_files)
    return Policy(model.requires_grad_(False), tokenizer, base_files.base_id)


@pytest.fixture
def exact(loaded_exact: Policy) -> Iterator[Policy]:
    """The real policy in fp32 without any adapter."""
    yield loaded_exact
    for name in loaded_exact.adapters:
        loaded_exact.drop_adapter(name)


@pytest.fixture(scope="session")
def population(latents: Latents) -> Population:
    """The shipped population, for the embedded base's latent features."""
    return load_population(len(latents.directions))


@pytest.fixture(scope="session")
def job_base(base_files: BaseFiles, latents: Latents, tmp_path_factory: pytest.TempPathFactory) -> BaseFiles:
    """The embedded base with a folder of its own for pools, which tests may fill."""
    return own_base(base_files, tmp_path_factory.mktemp("base") / "own")
