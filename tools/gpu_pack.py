#!/usr/bin/env python
"""Pack what tools/gpu_check.py needs on a machine without a network: wheels, mmcv's source, and a small data set.

    pip freeze > have.txt                                             # there
    python tools/gpu_pack.py pack --have have.txt --data DIR          # here
    pip install --no-index --no-deps --target site pack/wheels/*.whl  # there, with PYTHONPATH=site

Wheels are those of the frameworks and of all they need for --python that --have does not list; nothing of what it lists is
replaced. mmcv comes twice: without operators, which do for pretraining, and as source for --mmcv of the check. Of --data,
train/<class>/* and test/<class>/*, as many images of each class are taken as fit.
"""

import argparse
import json
import os
import os.path as osp
import re
import shutil
import subprocess
import sys
import tempfile
from glob import escape, glob

ROOT = osp.dirname(osp.dirname(osp.realpath(__file__)))
sys.path.insert(0, ROOT)

from mmmlo.utils.errors import SettingError
from mmmlo.utils.process import Parser, run

# PyTorch and what it brings along, which is there, in another version perhaps.
_TORCH = ('torch', 'nvidia-', 'cuda-', 'triton')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__)
    parser.add_argument('out', metavar='DIR', help='a new folder')
    parser.add_argument('--have', required=True, metavar='FILE', help='what pip freeze prints on the other machine')
    parser.add_argument('--python', default='3.12', help='its Python; default: 3.12')
    parser.add_argument('--data', metavar='DIR', help='images, train/<class>/* and test/<class>/*')
    parser.add_argument('--megabytes', type=int, default=60, help='size of the whole; default: 60')
    args = parser.read(megabytes=1)
    if osp.exists(args.out):
        parser.error(f'{args.out} exists; name a new folder')
    return args


def pip(*arguments: str) -> None:
    """Run pip."""
    command = [sys.executable, '-m', 'pip', *arguments, '--quiet', '--disable-pip-version-check']
    if subprocess.run(command).returncode:
        raise SettingError(f'pip {arguments[0]} failed; its message stands above')


def requirements(file: str) -> list[str]:
    """The lines of a file of requirements."""
    with open(osp.join(ROOT, 'requirements', file), encoding='utf-8') as lines:
        return [line.strip() for line in lines if re.match(r'\w', line)]


def pack_wheels(folder: str, python: str, have: str) -> None:
    """Build those of the frameworks, which are pure Python without mmcv's operators, and download what else is not there."""
    with open(have, encoding='utf-8') as file:
        there = {_plain(re.split(r'[=@ <>~]', line)[0]) for line in file if line.strip()}
    frameworks = [line for line in requirements('mminstall.txt') if line.startswith('onedl-')]
    pip('wheel', '--no-deps', '--wheel-dir', folder, *frameworks)  # in isolation there is no torch, so mmcv leaves them out
    mmcv = next(line for line in frameworks if line.startswith('onedl-mmcv='))
    pip('download', '--no-deps', '--no-build-isolation', '--no-binary', ':all:', '--dest', osp.dirname(folder), mmcv)
    target = ['--python-version', python, '--only-binary', ':all:', '--implementation', 'cp']
    for glibc in ('2014', '_2_17', '_2_27', '_2_28', '_2_31', '_2_34'):
        target += ['--platform', f'manylinux{glibc}_x86_64']
    with tempfile.TemporaryDirectory() as temporary:
        report, wanted = osp.join(temporary, 'report.json'), glob(osp.join(escape(folder), '*.whl'))
        wanted += ['timm', *requirements('runtime.txt')]
        pip('install', '--dry-run', '--ignore-installed', '--target', temporary, '--report', report, *target, *wanted)
        with open(report, encoding='utf-8') as file:
            found = [one['metadata'] for one in json.load(file)['install']]
    there |= {_plain(line.split('==')[0]) for line in frameworks}
    left_out = _TORCH + (('opencv-',) if any(name.startswith('opencv-') for name in there) else ())
    versions = {_plain(one['name']): one['version'] for one in found}
    missing = [f'{k}=={v}' for k, v in versions.items() if k not in there and not k.startswith(left_out)]
    pip('download', '--no-deps', '--dest', folder, *target, *missing)


def _plain(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name.strip()).lower()


def pack_images(source: str, target: str, space: int) -> int:
    """Copy images class by class in turn until the space is used; their number."""
    classes = [sorted(glob(osp.join(escape(folder), '*'))) for folder in glob(osp.join(escape(source), 't[re]*', '*'))]
    if not any(classes):
        raise SettingError(f'--data: {source} has no train/<class>/* and test/<class>/*')
    count = 0
    for path in (own[i] for i in range(max(map(len, classes))) for own in classes if i < len(own)):
        space -= osp.getsize(path)
        if space < 0:
            break
        destination = osp.join(target, osp.relpath(path, source))
        os.makedirs(osp.dirname(destination), exist_ok=True)
        shutil.copyfile(path, destination)
        count += 1
    return count


def main() -> None:
    """Pack, and say how large it became."""
    args = parse_args()
    wheels = osp.join(args.out, 'wheels')
    os.makedirs(wheels)
    pack_wheels(wheels, args.python, args.have)
    size = sum(osp.getsize(path) for path in glob(osp.join(escape(args.out), '**', '*.*'), recursive=True))
    left = args.megabytes * 10**6 - size
    if left < 0:
        raise SettingError(f'wheels and source take {size / 1e6:.0f} MB, more than --megabytes {args.megabytes}')
    images = pack_images(args.data, osp.join(args.out, 'data'), left) if args.data else 0
    print(f'{args.out}: {len(os.listdir(wheels))} wheels, {size / 1e6:.1f} MB with the source of mmcv; {images} images')


if __name__ == '__main__':
    run(main, status=2)
