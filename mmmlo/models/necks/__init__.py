from .mae_decoder import GridMAEDecoder

__all__ = ['GridMAEDecoder']
