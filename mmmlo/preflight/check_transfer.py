"""What is looked at before a segmentor or a detector is built."""

from importlib.util import find_spec

from mmengine.config import Config

from mmmlo.utils.errors import MissingPackageError

from .check_detection import check_detection_data
from .check_segmentation import check_segmentation_data

__all__ = ['check_frameworks', 'check_transfer']


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


def check_transfer(cfg: Config) -> None:
    """Check what training by a config of mmseg or mmdet needs, before anything is built; other configs need nothing.

    Args:
        cfg (Config): The config.

    Raises:
        MissingPackageError: See :func:`check_frameworks`.
        MmmloError: Images, labels or boxes are missing, or not as the config says.
    """
    check_frameworks(cfg)
    checks = dict(mmseg=check_segmentation_data, mmdet=check_detection_data)
    if check := checks.get(cfg.get('default_scope')):
        check(cfg)
