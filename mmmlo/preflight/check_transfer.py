"""What is looked at before a segmentor or a detector is built."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from mmengine.config import Config
from mmengine.logging import print_log

from mmmlo.utils.errors import MissingPackageError

from .check_detection import find_detection_problems
from .check_segmentation import find_segmentation_problems
from .problems import Problem, refuse

__all__ = ['check_frameworks', 'check_transfer', 'find_transfer_problems']


def check_frameworks(cfg: Config) -> None:
    """Check that mmcv has its operators, without which mmdet cannot be imported, if the config is mmdet's.

    A plain ``pip install`` of mmcv builds a package without them and says nothing; mmpretrain and mmseg do not miss them.

    Args:
        cfg (Config): The config.

    Raises:
        MissingPackageError: There is no mmcv, or there are no operators.
    """
    if cfg.get('default_scope') == 'mmdet' and (find_spec('mmcv') is None or find_spec('mmcv._ext') is None):
        raise MissingPackageError(
            'detection needs mmcv with its operators (mmcv._ext), and the one that is installed has none. '
            '`bash tools/install.sh --force` builds them; in an environment of your own, `bash tools/install.sh --active '
            '--force`'
        )


def find_transfer_problems(cfg: Config, count: int, tell: Callable[[str], None]) -> Iterator[Problem]:
    """Look at the data of a config of mmseg or mmdet; others have no problems here.

    Args:
        cfg (Config): The config.
        count (int): How many images of each data set to load.
        tell (Callable): Takes a line about each data set.
    """
    check_frameworks(cfg)
    checks = dict(mmseg=find_segmentation_problems, mmdet=find_detection_problems)
    if check := checks.get(cfg.get('default_scope')):
        yield from check(cfg, count, tell)


def check_transfer(cfg: Config, count: int = 200) -> None:
    """Check the data of a config of mmseg or mmdet, before anything is built; other configs need nothing.

    Args:
        cfg (Config): The config.
        count (int): How many images of each data set to load. Defaults to 200.

    Raises:
        MissingPackageError: See :func:`check_frameworks`.
        MmmloError: Images, labels or boxes are missing, or not as the config says.
    """
    refuse(find_transfer_problems(cfg, count, lambda text: print_log(text, 'current')))
