"""Whether mmcv has its operators."""

from importlib.util import find_spec

from mmmlo.utils.errors import MissingPackageError

__all__ = ['require_mmcv_ops']


def require_mmcv_ops() -> None:
    """Check that mmcv was built with its operators, without which mmdet cannot be imported.

    A plain ``pip install`` of mmcv builds a package without them and says nothing; mmpretrain and mmseg do not miss them.

    Raises:
        ImportError: There is no mmcv, or there are no operators.
    """
    if find_spec('mmcv') is None or find_spec('mmcv._ext') is None:
        raise MissingPackageError(
            'detection needs mmcv with its operators (mmcv._ext), and the one that is installed has none. '
            '`bash tools/install.sh --force` builds them; in an environment of your own, `bash tools/install.sh --active '
            '--force`'
        )
