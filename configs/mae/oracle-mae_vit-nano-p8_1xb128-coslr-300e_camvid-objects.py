# MAE that is told where the object is, and counts its patches 11 times: what weights can win on small objects in scenes.
# Run:  python tools/train.py configs/mae/oracle-mae_vit-nano-p8_1xb128-coslr-300e_camvid-objects.py
_base_ = './mae_vit-nano-p8_1xb128-coslr-300e_camvid-objects.py'

model = dict(type='mmmlo.OracleMAE')
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=[dict(type='PackInputs', meta_keys=('worth', ))])))
