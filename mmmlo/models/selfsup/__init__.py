from .base import BaseMaskedAutoencoder, Masking
from .cl_mae import CLMAE
from .guided_mae import GuidedMAE
from .mae import MAE
from .mlo_mae import MLOMAE
from .oracle_mae import OracleMAE, patch_worth

__all__ = ['BaseMaskedAutoencoder', 'CLMAE', 'GuidedMAE', 'MAE', 'MLOMAE', 'Masking', 'OracleMAE', 'patch_worth']
