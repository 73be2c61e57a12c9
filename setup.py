"""Which folders are packages; everything else about the build is in pyproject.toml.

The top-level folder ``adapters/`` is installed as ``nansparse.adapters``. A table in ``pyproject.toml`` can
map the folder, but its package discovery cannot add a mapped package to the ones it finds, and a list kept by
hand would go stale.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["nansparse", "nansparse.*"]),
        "nansparse.adapters",
        *(f"nansparse.adapters.{name}" for name in find_packages("adapters")),
    ],
    package_dir={"nansparse": "nansparse", "nansparse.adapters": "adapters"},
)
