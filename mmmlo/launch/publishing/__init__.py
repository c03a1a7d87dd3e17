"""Files that can be handed on: an encoder by itself, and the card that describes it."""

from .encoder_file import EncoderFile, PublishingError, publish_encoder
from .model_card import CardFacts, make_card

__all__ = ['CardFacts', 'EncoderFile', 'PublishingError', 'make_card', 'publish_encoder']
