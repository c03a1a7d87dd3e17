"""Evaluation of pretrained encoders by their features."""

from mmmlo.evaluation.features import batch_features, eval_mode, extract_features, gather_rows, pool_tokens
from mmmlo.evaluation.few_shot import FewShotResult, few_shot_probe
from mmmlo.evaluation.knn import knn_predict, knn_scores, vote_winner
from mmmlo.evaluation.linear_heads import HeadCandidate, LinearHeadsResult, fast_linear_probe
from mmmlo.evaluation.linear_probe import LinearProbeResult, linear_probe
from mmmlo.evaluation.results import (
    Metric,
    ProtocolResult,
    ResultsFile,
    Row,
    group_by_data,
    main_metrics,
    row_labels,
    shorten_middle,
)
from mmmlo.evaluation.results_table import to_markdown

__all__ = [
    'FewShotResult', 'HeadCandidate', 'LinearHeadsResult', 'LinearProbeResult', 'Metric', 'ProtocolResult', 'ResultsFile',
    'Row', 'batch_features', 'eval_mode', 'extract_features', 'fast_linear_probe', 'few_shot_probe', 'gather_rows',
    'group_by_data', 'knn_predict', 'knn_scores', 'linear_probe', 'main_metrics', 'pool_tokens', 'row_labels',
    'shorten_middle', 'to_markdown', 'vote_winner'
]
