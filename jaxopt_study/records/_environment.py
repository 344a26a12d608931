"""Environment of a record: versions, hardware and number formats."""

import os
import platform
from importlib import metadata
from typing import Any

import jax

_PACKAGES = ("jaxopt-study", "jax", "jaxlib", "optax", "flax", "numpy")


def environment() -> dict[str, Any]:
    """Return a description of versions, machine, devices and number formats.

    It contains no user, host or folder names.

    Returns:
        Plain values by name.

    Example:
        >>> sorted(environment())
        ['cpu_count', 'devices', 'machine', 'matmul_precision', 'platform', 'python', 'versions', 'x64']
    """
    devices = jax.devices()
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a checkout that was not installed
            versions[package] = None
    return {
        "python": platform.python_version(),
        "versions": versions,
        "platform": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "devices": {"platform": devices[0].platform, "kind": devices[0].device_kind, "count": len(devices)},
        "x64": bool(jax.config.values["jax_enable_x64"]),
        "matmul_precision": jax.config.values["jax_default_matmul_precision"],
    }
