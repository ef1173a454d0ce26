"""What setup.cfg cannot say: the folder configs/ is installed as `affectjax/configs`."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["affectjax", "affectjax.*"]), "affectjax.configs"],
    package_dir={"affectjax.configs": "configs"},
)
