"""What is looked at before a run starts: config, data, classes, and the encoder that a checkpoint gave."""

from .check_classes_hook import CheckClassesHook
from .verify_pretrained_hook import VerifyPretrainedHook

__all__ = ['CheckClassesHook', 'VerifyPretrainedHook']
