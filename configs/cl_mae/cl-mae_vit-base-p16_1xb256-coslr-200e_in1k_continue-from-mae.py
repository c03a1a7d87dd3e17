# CL-MAE, ViT-B/16 on ImageNet-1K, continued from an encoder that MAE has pretrained. The masking network is new, and so is
# the decoder where the file has none, as MAE's own. All else is as from scratch; MAE's encoder has learned from normalized
# pixels, and this config predicts raw ones, as the released CL-MAE.
# The file, once:  python tools/model_converters/convert.py mae_pretrain_vit_base.pth \
#                      work_dirs/converted/mae_vit-base-p16_in1k.pth --to mmmlo --verify
# A checkpoint of configs/mae serves as it is: --cfg-options load_from=work_dirs/mae_vit-base-p16.../epoch_800.pth
# Cost: 200 epochs, 1,000,800 pretrain and as many masking steps of 256 images; for several GPUs add --auto-scale-lr.
# Run:  bash tools/dist_train.sh configs/cl_mae/cl-mae_vit-base-p16_1xb256-coslr-200e_in1k_continue-from-mae.py 8 --amp \
#           --auto-scale-lr
_base_ = './cl-mae_vit-base-p16_1xb256-coslr-200e_in1k.py'

# tools/train.py refuses to start without it, or with one that lacks a part of the encoder.
load_from = 'work_dirs/converted/mae_vit-base-p16_in1k.pth'
