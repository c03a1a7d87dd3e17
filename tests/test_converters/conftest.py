"""Tiny models of other libraries, their weights away from where everything is zero or one."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from mmmlo import registry  # noqa: F401 - applies mmmlo.compat, which must precede timm

# Two heads of 64, as the usual architectures have them.
SIZE = dict(embed_dim=128, depth=2, num_heads=2, mlp_ratio=2, patch_size=4, img_size=16)


@pytest.fixture
def jitter() -> Callable[[nn.Module], nn.Module]:
    """Move all weights by seeded noise."""

    def move(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        return model.eval()

    return move


@pytest.fixture
def timm_vit(jitter):
    """timm's ViT, 128 dims x 2 blocks on 4 x 4 patches of 4 x 4 pixels; ``vit(**updates)``."""
    from timm.models import VisionTransformer

    return lambda **updates: jitter(VisionTransformer(**{**SIZE, 'num_classes': 0, **updates}))


@pytest.fixture
def our_vit():
    """Our encoder of the same size with the weights of a state; ``vit(state, **updates)``."""
    from mmmlo.models.backbones import MaskedViT

    def build(state: dict, **updates) -> nn.Module:
        arch = dict(embed_dims=128, num_layers=2, num_heads=2, feedforward_channels=256)
        model = MaskedViT(**{**dict(arch=arch, img_size=16, patch_size=4), **updates})
        model.load_state_dict({key[9:]: value for key, value in state.items() if key.startswith('backbone.')})
        model.eval()
        return model

    return build


@pytest.fixture
def image():
    """Seeded noise; ``image(height, width)``."""
    return lambda height=16, width=16: torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def save(tmp_path):
    """Write a file and return its path; ``save(name, content)``."""

    def write(name: str, content: object) -> str:
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return write


@pytest.fixture
def same():
    """Whether two states have the same names and bits."""
    return lambda one, other: one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
