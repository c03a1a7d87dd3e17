"""Betty 0.2.1 from a user's checkout, beside a current PyTorch."""

import os.path as osp
import sys
from typing import Any

import torch

URL = 'https://github.com/leopard-ai/betty'
BETTY_FILES = ('engine.py', 'configs/__init__.py', 'problems/implicit_problem.py', 'hypergradient/darts.py')


def missing_file(checkout: str) -> str | None:
    """The first file that a checkout of Betty should have and this folder has not."""
    names = (f'betty/{name}' for name in BETTY_FILES)
    return next((name for name in names if not osp.isfile(osp.join(checkout, name))), None)


def use_betty(checkout: str) -> None:
    """Make ``import betty`` find the checkout, whose packaging refuses Python 3.11 and newer, and silence its log."""
    if checkout not in sys.path:
        sys.path.insert(0, checkout)
    from betty.logging.logger_base import get_logger

    get_logger().setLevel('WARNING')


class AdamW(torch.optim.AdamW):
    """PyTorch's, which takes the ``decoupled_weight_decay`` that it has itself put among its ``defaults``.

    Betty builds every optimizer anew from its ``defaults``.
    """

    def __init__(self, params: Any, *args: Any, decoupled_weight_decay: bool = True, **kwargs: Any) -> None:
        super().__init__(params, *args, **kwargs)
