from .encoder_layer import SelectiveEncoderLayer
from .position_embedding import sincos_position_embedding
from .pretrained_target import PretrainedTarget, pretrained_target

__all__ = ['PretrainedTarget', 'SelectiveEncoderLayer', 'pretrained_target', 'sincos_position_embedding']
