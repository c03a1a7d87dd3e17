from .encoder_layer import SelectiveEncoderLayer
from .position_embedding import sincos_position_embedding

__all__ = ['SelectiveEncoderLayer', 'sincos_position_embedding']
