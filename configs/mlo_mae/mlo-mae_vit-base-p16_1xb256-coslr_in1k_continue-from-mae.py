# MLO-MAE, ViT-B/16 on ImageNet-1K, continued from an encoder that MAE has pretrained. The masking network and the head are
# new, and so is the decoder where the file has none, as MAE's own. All else is the preset of the paper's splits.
# The file, once:  python tools/model_converters/convert.py mae_pretrain_vit_base.pth \
#                      work_dirs/converted/mae_vit-base-p16_in1k.pth --to mmmlo --verify
# A checkpoint of configs/mae serves as it is: --cfg-options load_from=work_dirs/mae_vit-base-p16.../epoch_800.pth
# Cost: 500,454 pretrain, 250,227 finetune and 250,227 masking steps of 256 images; a GPU with 80 GB.
# Run:  python tools/train.py configs/mlo_mae/mlo-mae_vit-base-p16_1xb256-coslr_in1k_continue-from-mae.py --amp
_base_ = './mlo-mae_vit-base-p16_1xb256-coslr_in1k_paper.py'

# tools/train.py refuses to start without it, or with one that lacks a part of the encoder.
load_from = 'work_dirs/converted/mae_vit-base-p16_in1k.pth'
