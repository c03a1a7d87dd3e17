"""MLO-MAE's three levels on linear maps: what an encoder must reconstruct is learned from a classifier's validation loss.

Level pretrain:  encoder and decoder minimize the reconstruction error of ten features, each with a weight.
Level finetune:  a head on the frozen encoder minimizes the loss of a classification.
Level masking:   the weights minimize the validation loss, by way of the encoder and of the head that was trained on it.

    python docs/examples/three_levels.py [SEED]
"""
import sys

import torch
from mmengine.optim import build_optim_wrapper
from torch import nn
from torch.autograd import grad

import mmmlo.registry  # noqa: F401  so that mmengine finds the names that start with mmmlo


class LinearMAE(nn.Module):
    level_modules = dict(pretrain=('encoder', 'decoder'), finetune=('head',), masking=('scores',))  # the lowest level first

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder, self.head = (nn.Linear(*sizes, bias=False) for sizes in [(10, 4), (4, 10), (4, 2)])
        self.scores = nn.Parameter(torch.zeros(10))

    def level_loss(self, level, batch, fixed=None):
        x, y = batch
        code = self.encoder(x)  # never detached: the engine knows which levels stand still
        if level == 'pretrain':
            return dict(loss=(self.scores.sigmoid() * (self.decoder(code) - x).square()).mean())
        return dict(loss=nn.functional.cross_entropy(self.head(code), y))


def by_plain_autograd(problem, batches):
    """The hypergradient written out: from head to encoder, where both paths meet, then to the scores, by - d2L/du dw . v."""
    pretrain, finetune, validation = (problem.level_loss(level, batch)['loss'] for level, batch in batches.items())
    encoder, head = problem.encoder.weight, problem.head.weight
    direct, by_head = grad(validation, [encoder, head])
    vector = direct - grad(grad(finetune, head, create_graph=True), encoder, by_head)[0]
    return -grad(grad(pretrain, encoder, create_graph=True), problem.scores, vector)[0]


torch.set_default_dtype(torch.float64)
torch.manual_seed(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
# Features 0 and 1 tell the class y, the other eight vary more: at equal weights a code of four numbers keeps those.
y = torch.arange(200) % 2
mean, deviation = (2.0 * y - 1).outer(torch.tensor([1.0] * 2 + [0.0] * 8)), torch.tensor([0.5] * 2 + [2.0] * 8)
problem, batches = LinearMAE(), {level: (torch.normal(mean, deviation), y) for level in LinearMAE.level_modules}
levels = {level: dict(optimizer=dict(type='Adam', lr=0.01)) for level in ('pretrain', 'finetune')}
levels['masking'] = dict(optimizer=dict(type='Adam', lr=0.03), paths=['pretrain', 'finetune>pretrain'], start=200)
wrapper = build_optim_wrapper(problem, dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=levels))
for iteration in range(501):  # the weights stand still up to iteration 200, to show what they change
    if iteration % 100 == 0:
        (found,), losses, _ = wrapper.hypergradient(problem, 'masking', batches['masking'], batches)
        error, weights = (found - by_plain_autograd(problem, batches)).norm() / found.norm(), problem.scores.sigmoid()
        print(f'iteration {iteration}: relative error to plain autograd {error:.1e}, validation loss {losses["loss"]:.3f}, '
              f'mean weight of features that tell the class {weights[:2].mean():.2f}, of others {weights[2:].mean():.2f}')
    wrapper.update_levels(problem, {level: [batches[level]] * count for level, count in wrapper.due().items()})
