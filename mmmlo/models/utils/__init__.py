from .position_embedding import sincos_position_embedding

__all__ = ['sincos_position_embedding']
