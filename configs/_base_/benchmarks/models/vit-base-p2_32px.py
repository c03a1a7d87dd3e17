# ViT-B with patches of 2 x 2 pixels and MLO-MAE's head on the class token: norm, dropout 0.1, linear layer.
# The encoder has no checkpoint here: so it is trained from scratch, the baseline "no pretraining". `--backbone CHECKPOINT`
# sets its init_cfg. Its own final norm stays, as in MLO-MAE's level `finetune`, so that all of the checkpoint is used.
model = dict(
    type='ImageClassifier',
    # As in pretraining; the released fine-tuning has another deviation than the released pretraining.
    data_preprocessor=dict(mean=[125.307, 122.950, 113.865], std=[62.985, 62.094, 66.705], to_rgb=False),
    backbone=dict(type='VisionTransformer', arch='base', img_size=32, patch_size=2, out_type='raw'),
    head=dict(type='mmmlo.TokenClsHead', num_classes=10, in_channels=768))
