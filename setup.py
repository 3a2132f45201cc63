"""Packs ``configs/`` and ``kernels/`` into the package, so that an installed command has them.

All else is in ``setup.cfg``. An editable installation reads them where they lie.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies the folders beside the package into what is packed of it."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if not self.editable_mode:
            for name in ("configs", "kernels"):
                target = Path(self.build_lib) / "kaggle_pipeline" / name
                shutil.copytree(name, target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
