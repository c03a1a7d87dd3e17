from .multi_level_distributed_data_parallel import MultiLevelDistributedDataParallel, check_model_wrapper

__all__ = ['MultiLevelDistributedDataParallel', 'check_model_wrapper']
