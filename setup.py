"""Packaging of mmmlo.

The OpenMMLab frameworks are not among the requirements here, on purpose: see requirements/mminstall.txt. Install with
``bash tools/install.sh``.
"""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def requirements(name: str) -> list[str]:
    """Read one file of ``requirements/``, without its comments."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith('#')]


EXTRAS = {name: requirements(name) for name in ('tests', 'docs', 'browser')}

setup(
    name='mmmlo',
    version=runpy.run_path(str(ROOT / 'mmmlo' / 'version.py'))['__version__'],
    description='Learned masking for masked-image pretraining with OpenMMLab: MLO-MAE and CL-MAE',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords=['computer vision', 'self-supervised learning', 'masked autoencoders', 'multi-level optimization'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    packages=find_packages(include=['mmmlo', 'mmmlo.*']),
    include_package_data=True,
    python_requires='>=3.10',
    install_requires=requirements('runtime'),
    extras_require={**EXTRAS, 'all': sum(EXTRAS.values(), [])},
    zip_safe=False,
)
