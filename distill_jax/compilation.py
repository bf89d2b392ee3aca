"""Compiled programs are kept on disk, so that a machine compiles each of them once."""

import hashlib
import os
import pathlib
import warnings

import jax

from distill_jax import processes

LARGEST_CACHE = 2 * 1024**3  # bytes; beyond that, JAX evicts the least recently used programs
SETTINGS = {  # small programs are kept too: a run has dozens
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    "jax_compilation_cache_max_size": LARGEST_CACHE,
}


def keep_programs() -> None:
    """Turns on JAX's persistent compilation cache, in the user's cache folder.

    JAX's own environment variables, such as JAX_COMPILATION_CACHE_DIR, take precedence; JAX_ENABLE_COMPILATION_CACHE=0 turns the cache off.
    A program that cannot be read or written is compiled silently. Several processes have no cache unless JAX_COMPILATION_CACHE_DIR is set:
    only the first one would write it, and on GPUs the others could then wait forever for the autotuning that it skips. Call it after
    `processes.join`.
    """
    if processes.are_several():
        return
    warnings.filterwarnings("ignore", message=".*persistent compilation cache")
    settings = {name: value for name, value in SETTINGS.items() if name.upper() not in os.environ}
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = user_cache() / f"programs-{processor()}"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            remove_unfinished(folder)
        except (OSError, RuntimeError):  # there may be no home
            return
        settings["jax_compilation_cache_dir"] = str(folder)
    for name, value in settings.items():
        jax.config.update(name, value)


def user_cache() -> pathlib.Path:
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "distill_jax"


def processor() -> str:
    """A name for what programs are compiled for: computers of several kinds may share the folder, and some lack others' instructions."""
    features, path = "", pathlib.Path("/proc/cpuinfo")
    if path.exists():
        with path.open() as file:  # it has a section for each core; the first one does
            features = next((line.rstrip("\n") for line in file if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(f"{os.uname().machine} {features}".encode()).hexdigest()[:8]


def remove_unfinished(folder: pathlib.Path) -> None:
    """Removes the programs whose writing was cut short: JAX would neither read nor replace them. It writes their time of access last."""
    import filelock

    with filelock.FileLock(folder / ".lockfile", timeout=10):  # the one that JAX takes
        for path in folder.glob("*-cache"):
            if not path.with_name(path.name.removesuffix("cache") + "atime").exists():
                path.unlink()
