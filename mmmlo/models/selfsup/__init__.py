from .base import BaseMaskedAutoencoder, Masking
from .mae import MAE
from .mlo_mae import MLOMAE

__all__ = ['BaseMaskedAutoencoder', 'MAE', 'MLOMAE', 'Masking']
