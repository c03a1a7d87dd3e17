"""Evaluation of pretrained encoders by their features."""

from .features import extract_features, pool_tokens
from .few_shot import few_shot_probe, fit_logistic_regression
from .knn import knn_predict, knn_scores
from .linear_heads import fast_linear_probe
from .results import Metric, ProtocolResult, ResultsFile, Row
from .results_table import to_markdown

__all__ = [
    'Metric', 'ProtocolResult', 'ResultsFile', 'Row', 'extract_features', 'fast_linear_probe', 'few_shot_probe',
    'fit_logistic_regression', 'knn_predict', 'knn_scores', 'pool_tokens', 'to_markdown'
]
