"""What a test file runs in each of the processes that ``run_in_processes`` starts."""

import os
from collections.abc import Mapping
from typing import Any

import torch


def run_checks(namespace: Mapping[str, Any]) -> None:
    """Join two gloo processes, call each ``check_*(rank)`` of a test file and print its name when it has passed.

    Args:
        namespace (Mapping[str, Any]): The file's ``globals()``.
    """
    rank = int(os.environ['RANK'])
    torch.distributed.init_process_group('gloo', os.environ['RENDEZVOUS'], rank=rank, world_size=2)
    for name, check in list(namespace.items()):
        if name.startswith('check_'):
            check(rank)
            print(name, flush=True)
            torch.distributed.barrier()
    os._exit(0)
