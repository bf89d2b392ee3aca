"""A run small enough for every test: 200 digits, a small net, 4 epochs of 5 steps, 2 cycles."""

import os
import tempfile

import jax
import pytest

from configs import sd_digits
from distill_jax import train

# Many tests build the same programs, some in processes of their own: each is compiled once a session.
CACHE = tempfile.TemporaryDirectory(prefix="distill_jax_tests_")
for name, value in {
    "jax_compilation_cache_dir": CACHE.name,
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)


def make_config(**fields):
    config = sd_digits.get_config()
    config.epochs = 4
    config.batch_size = 40
    config.eval_every = 1
    config.checkpoint_every = 1
    config.log_every = 2
    config.data.train_examples = 200
    config.schedule.cycles = 2
    for name, value in fields.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return config


@pytest.fixture(scope="session")
def program():
    return train.build(make_config())


@pytest.fixture(scope="session")
def finished(program, tmp_path_factory):
    """The workdir and the summary of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, train.run(program, 0, workdir)
