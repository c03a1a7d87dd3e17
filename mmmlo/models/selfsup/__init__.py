from .base import BaseMaskedAutoencoder, Masking
from .cl_mae import CLMAE
from .mae import MAE
from .mlo_mae import MLOMAE

__all__ = ['BaseMaskedAutoencoder', 'CLMAE', 'MAE', 'MLOMAE', 'Masking']
