# MAE that is told where the digit is, and counts its patches 11 times: what weights can win on cluttered digits.
# Run:  python tools/train.py configs/mae/oracle-mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py
_base_ = './mae_vit-nano-p4_1xb128-coslr-188e_cluttered-digits.py'

model = dict(type='mmmlo.OracleMAE')
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=[dict(type='PackInputs', meta_keys=('worth', ))])))
