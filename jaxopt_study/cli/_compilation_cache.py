"""Compiled programs of earlier commands, kept in the user's cache folder."""

import hashlib
import os
import platform
from pathlib import Path

import jax
import platformdirs

BYTES = 2**30  # of all programs kept
SECONDS = 0.1  # programs that compile in less are not kept


def keep_programs() -> None:
    """Have JAX read and keep compiled programs in the user's cache folder, unless the user has set a folder of JAX.

    Beyond a gibibyte, the programs that were used longest ago are deleted. A folder belongs to one version of JAX and
    one kind of processor, since machines that share a home directory may not run each other's programs.
    `JAX_ENABLE_COMPILATION_CACHE=false` turns it off.
    """
    settings = jax.config.values
    if settings["jax_compilation_cache_dir"] is not None or not settings["jax_enable_compilation_cache"]:
        return
    programs = platformdirs.user_cache_path("jaxopt_study", appauthor=False) / "programs"
    folder = programs / f"jax-{jax.__version__}-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _shrink(programs, BYTES)
    except OSError:  # a home directory that cannot be written, or another process that deletes too
        return
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS)


def _processor() -> str:
    """Return a short name of the instructions that the processor has."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [line for line in lines if line.lower().startswith(("flags", "features"))]
    known = found[0] if found else f"{platform.machine()} {platform.processor()}"
    return hashlib.sha256(known.encode()).hexdigest()[:8]


def _shrink(folder: Path, limit: int) -> None:
    """Delete the files that were read longest ago until the others have at most `limit` bytes."""
    files = [(path, path.stat()) for path in folder.rglob("*") if path.is_file()]
    total = sum(stat.st_size for _, stat in files)
    for path, stat in sorted(files, key=lambda file: max(file[1].st_atime, file[1].st_mtime)):
        if total <= limit:
            return
        path.unlink(missing_ok=True)
        total -= stat.st_size
