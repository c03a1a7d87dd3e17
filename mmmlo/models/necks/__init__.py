from .mae_decoder import GridMAEDecoder
from .simple_fpn import SimpleFPN

__all__ = ['GridMAEDecoder', 'SimpleFPN']
