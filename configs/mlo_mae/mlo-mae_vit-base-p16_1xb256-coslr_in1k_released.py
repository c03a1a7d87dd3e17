# MLO-MAE, ViT-B/16 on ImageNet-1K with the released code's values and step counts: D_u is all of train, ReLU in the masker,
# trained position embeddings, weight decay 0.01 on every parameter, no warm-up.
# Not copied, because they are faults (numbers as in docs/released_faults.md):
#   1 the official validation set as D_val, which lets test labels train the masker; D_val is 20 % of train here
#   3 accuracy while training measured on the test split   7 head and masker end at half their learning rate
#   8 options that do nothing                              11 dropout drawn anew in each pass of a hypergradient
#  12, 13 the masker's input hangs on the encoder          17-20 the distributed faults    24 resume
# Also ours: the exact hypergradient; Betty's finite differences are dict(type='mmmlo.FiniteDifference', alpha=0.01).
# Cost: 500,454 pretrain, 250,227 finetune and 250,227 masking steps of 256 images; a GPU with 80 GB.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae_vit-base-p16_1xb256-coslr_in1k_released.py
_base_ = './mlo-mae_vit-base-p16_1xb256-coslr_in1k_paper.py'

model = dict(backbone=dict(learnable_pos_embed=True), masker=dict(act_cfg=dict(type='ReLU')))
train_dataloader = dict(dataset=dict(_delete_=True, **_base_.train_split))
optim_wrapper = dict(
    levels=dict(
        pretrain=dict(optimizer=dict(weight_decay=0.01), paramwise_cfg=dict(_delete_=True)),
        finetune=dict(optimizer=dict(weight_decay=0.01)),
        masking=dict(optimizer=dict(weight_decay=0.01))))
