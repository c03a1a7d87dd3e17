from .ada_mae import AdaMAE
from .adios_mae import ADIOSMAE
from .auto_mae import AutoMAE, MaskDiscriminator
from .base import BaseMaskedAutoencoder, Masking
from .cl_mae import CLMAE
from .guided_mae import GuidedMAE
from .mae import MAE
from .mlo_mae import MLOMAE
from .oracle_mae import OracleMAE, patch_worth

__all__ = [
    'ADIOSMAE', 'AdaMAE', 'AutoMAE', 'BaseMaskedAutoencoder', 'CLMAE', 'GuidedMAE', 'MAE', 'MLOMAE', 'MaskDiscriminator',
    'Masking', 'OracleMAE', 'patch_worth',
]
