from .knn_val_loop import KNNTestLoop, KNNValLoop
from .multi_level_train_loop import MultiLevelTrainLoop
from .resumable_train_loop import ResumableTrainLoop

__all__ = ['KNNTestLoop', 'KNNValLoop', 'MultiLevelTrainLoop', 'ResumableTrainLoop']
