"""Random numbers of each process's own, once the model is initialized."""

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import set_random_seed

from mmmlo.registry import HOOKS


@HOOKS.register_module()
class RankSeedHook(Hook):
    """Seeds each process by the run's seed plus its rank when training begins.

    mmengine seeds all processes alike, so that they initialize the model alike, and then leaves it at that: every process
    draws the same dropout, the same random masks and, without workers, the same augmentation for its own images. Its
    ``randomness.diff_rank_seed`` would have them initialize differently and shuffle by a seed that is not the config's.
    Samplers have generators of their own and are not touched. In a single process it does nothing.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner) -> None:
        """Seed Python, NumPy and PyTorch."""
        if get_world_size() > 1 and runner.seed is not None:
            set_random_seed(runner.seed, diff_rank_seed=True)
