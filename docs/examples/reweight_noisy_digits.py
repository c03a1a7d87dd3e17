"""Learn a weight for each of 1050 handwritten digits, of which 40 % have a wrong label, from 50 clean ones.

Level training:   the network's weights minimize the weighted loss of the noisy samples.
Level weighting:  the noisy samples' weights minimize the loss of that network on the clean ones.
A sample gains weight where a training step on it lowers the clean loss. Nothing tells it which labels are wrong.

    python docs/examples/reweight_noisy_digits.py [SEED ...]
"""
import sys

import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper
from sklearn.datasets import load_digits
from torch import nn

import mmmlo.registry  # noqa: F401  so that mmengine finds the names that start with mmmlo

images, digits = (torch.as_tensor(array) for array in load_digits(return_X_y=True))
images, test = images.float() / 16, torch.arange(1100, 1797)  # the test digits stay out of all else, for every seed


class Reweighting(nn.Module):
    level_modules = dict(training=('network',), weighting=('scores',))  # the lowest level first

    def __init__(self, samples):
        super().__init__()
        self.network = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
        self.scores = nn.Parameter(torch.zeros(samples))

    def level_loss(self, level, batch, fixed=None):
        losses = F.cross_entropy(self.network(images[batch['samples']]), batch['labels'], reduction='none')
        return dict(loss=losses if level == 'weighting' else losses * self.scores.sigmoid())


def train(batches):
    """Train the levels that have a batch; return the test accuracy and the weights."""
    problem = Reweighting(len(batches['training']['samples']))
    problem.scores.requires_grad_('weighting' in batches)
    levels = dict(training=dict(optimizer=dict(type='SGD', lr=0.5)))
    if 'weighting' in batches:
        levels['weighting'] = dict(optimizer=dict(type='Adam', lr=0.1), paths=['training'])
    wrapper = build_optim_wrapper(problem, dict(constructor='mmmlo.MultiLevelOptimWrapperConstructor', levels=levels))
    for _ in range(200):
        wrapper.update_levels(problem, {level: [batches[level]] * count for level, count in wrapper.due().items()})
    return (problem.network(images[test]).argmax(1) == digits[test]).float().mean(), problem.scores.detach().sigmoid()


for seed in map(int, sys.argv[1:] or '012'):
    torch.manual_seed(seed)
    valid, noisy = torch.randperm(1100).split([50, 1050])
    wrong = torch.rand(len(noisy)) < 0.4  # a wrong label names the next digit
    clean, given = (dict(samples=s, labels=(digits[s] + w) % 10) for s, w in [(valid, 0), (noisy, wrong)])
    accuracy, weights = train(dict(training=given, weighting=clean))
    equal, alone = (train(dict(training=batch))[0] for batch in (given, clean))
    print(f'seed {seed}: test accuracy without reweighting {equal:.3f}, from the 50 clean samples alone {alone:.3f}, with '
          f'reweighting {accuracy:.3f}; mean weight of right labels {weights[~wrong].mean():.2f}, of wrong labels '
          f'{weights[wrong].mean():.2f}')
