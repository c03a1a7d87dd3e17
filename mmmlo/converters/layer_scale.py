"""Names of layer scales, the factors on the output of each half of a block, for encoders that have them."""

from .keys import Pair

__all__ = ['GAMMA', 'LAYER_SCALE', 'gamma_pairs']


GAMMA = ('backbone.layers.{n}.attn.gamma1.weight', 'backbone.layers.{n}.ffn.gamma2.weight')


def gamma_pairs(first: str, second: str) -> list[Pair]:
    """Pairs of another library's names, for the attention and for the MLP, and ours."""
    return list(zip((first, second), GAMMA))


# timm's names.
LAYER_SCALE = gamma_pairs('blocks.{n}.ls1.gamma', 'blocks.{n}.ls2.gamma')
