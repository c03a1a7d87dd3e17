# What all pretraining configs share. Types without a scope are mmpretrain's or mmengine's, ours are written mmmlo.X.
default_scope = 'mmpretrain'

default_hooks = dict(
    # Reads the losses when they are logged; mmengine's hook waits for the device in every iteration.
    runtime_info=dict(type='mmmlo.DeferredRuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    # Each level's schedule counts that level's own steps; with one optimizer it is mmengine's hook.
    param_scheduler=dict(type='mmmlo.LevelParamSchedulerHook'),
    # Never fewer whole files than before, each with all that the run needs to go on from it exactly.
    checkpoint=dict(type='mmmlo.SafeCheckpointHook', interval=1, max_keep_ckpts=3),
    # At SIGTERM and Ctrl-C saves and ends; requeue=True puts a SLURM job into the queue again.
    stop_signal=dict(type='mmmlo.StopSignalHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    rank_seed=dict(type='mmmlo.RankSeedHook'),
    # Compares the model with the checkpoints that it starts from, and the head with the classes of the data.
    verify_pretrained=dict(type='mmmlo.VerifyPretrainedHook'),
    check_classes=dict(type='mmmlo.CheckClassesHook'),
    # Leaves out steps that are not finite, and stops after too many.
    non_finite_guard=dict(type='mmmlo.NonFiniteGuardHook'),
    # Writes provenance.json.
    provenance=dict(type='mmmlo.ProvenanceHook'),
)
custom_hooks = [dict(type='mmmlo.MaskStatisticsHook', interval=50)]

env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl'))

# For runs on several processes, of several levels or of one.
model_wrapper_cfg = dict(type='mmmlo.MultiLevelDistributedDataParallel')

# What it cannot write, as on a full disk, it leaves out.
vis_backends = [dict(type='mmmlo.SafeLocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
log_processor = dict(window_size=50, by_epoch=True)
load_from = None
resume = False
randomness = dict(seed=0, deterministic=False)
