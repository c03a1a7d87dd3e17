"""The released M-MAE, whose file has U-MAE's loss too, and HPM: golden values, and checkouts that two variables name."""

import os
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch

from mmmlo.models.losses import LogDetLoss, RankingLoss, UniformityLoss
from mmmlo.models.selection import PatchSelection, select_patches

PREDICTOR = dict(type='mmmlo.GridMAEDecoder', grid=(4, 4), patch_size=4, embed_dim=8, decoder_embed_dim=8, decoder_depth=0,
                 decoder_num_heads=2)


def of_tokens(loss, tokens):
    return loss(tokens[:, None], [])


def ranking(scores, losses):
    loss = RankingLoss(PREDICTOR)
    loss.predictor.decode_masked = lambda *_: scores[..., None]
    return loss(scores[..., None], [], PatchSelection(None, None, None, None), losses)


def test_golden_values():
    tokens = torch.sin(torch.arange(24.0)).reshape(4, 6)
    assert of_tokens(UniformityLoss(1), tokens).item() == pytest.approx(0.8206465, abs=1e-6)
    assert of_tokens(LogDetLoss(1, mu=3), tokens).item() == pytest.approx(-1.2115560, abs=1e-6)
    scores, losses = torch.sin(torch.arange(10.0)).reshape(2, 5), torch.cos(3 * torch.arange(10.0)).reshape(2, 5)
    assert ranking(scores, losses).item() == pytest.approx(0.7789707, abs=1e-5)


@pytest.fixture
def released(monkeypatch):
    """``released(variable, module)``: a module of a checkout."""

    def load(variable, module):
        if variable not in os.environ:
            pytest.skip(f'{variable} names no checkout')
        monkeypatch.syspath_prepend(os.environ[variable])
        monkeypatch.delitem(sys.modules, module, raising=False)
        return import_module(module)

    return load


def test_losses_of_class_tokens_are_m_mae_s(released, monkeypatch):
    theirs = released('MMMLO_M_MAE', 'loss_func')
    monkeypatch.setattr(theirs, 'GatherLayer', SimpleNamespace(apply=lambda features: (features,)))  # one process
    tokens = torch.randn(64, 96)
    torch.testing.assert_close(of_tokens(UniformityLoss(1), tokens), theirs.uniformity_loss_square(tokens))
    for mu in (1, 3):
        torch.testing.assert_close(of_tokens(LogDetLoss(1, mu), tokens), theirs.uniformity_loss_TCR(tokens, mu))


def test_ranking_and_the_guided_share_are_hpm_s(released):
    theirs = released('MMMLO_HPM', 'models_mae_learn_loss').MaskedAutoencoderViT
    scores, losses = torch.randn(16, 147), torch.rand(16, 147)
    expected = theirs.forward_learning_loss(None, scores, None, losses, relative=True)
    torch.testing.assert_close(ranking(scores, losses), expected, rtol=0, atol=1e-5)
    scores = torch.rand(16, 196)
    for epoch in (0, 99, 199):
        share = 0.5 * (epoch + 1) / 200
        drawn = theirs.generate_mask(None, scores, epoch=epoch, total_epoch=200)
        hardest = torch.zeros(16, 196).scatter(1, scores.topk(int(147 * share), dim=1).indices, 1.0).bool()
        for mask in (drawn, select_patches(scores, 0.75, guided_share=share).mask):
            assert (mask.sum(dim=1) == 147).all() and (mask[hardest] == 1).all()
            assert mask[~hardest].mean() == pytest.approx((147 - int(147 * share)) / (196 - int(147 * share)), abs=0.01)
