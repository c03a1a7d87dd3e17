"""Evaluation of pretrained encoders by their features."""

from mmmlo.evaluation.features import batch_features, eval_mode, extract_features, gather_rows, pool_tokens
from mmmlo.evaluation.knn import knn_scores
from mmmlo.evaluation.linear_probe import LinearProbeResult, linear_probe

__all__ = [
    'LinearProbeResult',
    'batch_features',
    'eval_mode',
    'extract_features',
    'gather_rows',
    'knn_scores',
    'linear_probe',
    'pool_tokens',
]
