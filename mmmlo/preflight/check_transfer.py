"""What is looked at before a segmentor or a detector is built."""

from mmengine.config import Config

__all__ = ['check_frameworks', 'check_transfer']


def check_frameworks(cfg: Config) -> None:
    """Check that what a config's framework cannot do without is there, and nothing else.

    Args:
        cfg (Config): The config.

    Raises:
        ImportError: The config is mmdet's, and mmcv is without its operators.
    """
    if cfg.get('default_scope') == 'mmdet':
        from .mmcv_ops import require_mmcv_ops

        require_mmcv_ops()


def check_transfer(cfg: Config) -> None:
    """Check what training by a config of mmseg or mmdet needs, before anything is built; other configs need nothing.

    Args:
        cfg (Config): The config.

    Raises:
        ImportError: See :func:`check_frameworks`.
        ValueError: Images, labels or boxes are missing, or not as the config says.
    """
    check_frameworks(cfg)
    scope = cfg.get('default_scope')
    if scope == 'mmseg':
        from .check_segmentation import check_segmentation_data

        check_segmentation_data(cfg)
    elif scope == 'mmdet':
        from .check_detection import check_detection_data

        check_detection_data(cfg)
