from .knn_val_loop import KNNTestLoop, KNNValLoop
from .multi_level_train_loop import MultiLevelTrainLoop

__all__ = ['KNNTestLoop', 'KNNValLoop', 'MultiLevelTrainLoop']
