import pytest
import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample

from mmmlo.models import TokenClsHead


def features():
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(4, 1 + 9, 8, generator=generator, dtype=torch.float64) for _ in range(2))


def build(**kwargs):
    torch.manual_seed(0)
    head = TokenClsHead(num_classes=5, in_channels=8, **kwargs).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return head


@pytest.mark.parametrize(('token', 'pick'), [('cls', lambda x: x[:, 0]), ('mean', lambda x: x[:, 1:].sum(1) / 9)])
def test_loss_is_the_cross_entropy_of_the_last_features(token, pick):
    head = build(token=token).eval()
    feats, labels = features(), [3, 0, 4, 4]
    x = pick(feats[-1])
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-6).sqrt()
    logits = (x * head.norm.weight + head.norm.bias) @ head.fc.weight.T + head.fc.bias
    torch.testing.assert_close(head(feats), logits)

    losses = head.loss(feats, [DataSample().set_gt_label(label) for label in labels])
    expected = sum(logits[i].logsumexp(0) - logits[i, label] for i, label in enumerate(labels)) / 4
    assert list(losses) == ['loss']
    torch.testing.assert_close(losses['loss'], expected)


def test_predicts_the_largest_score():
    head = build().eval()
    predictions = head.predict(features())
    assert [int(sample.pred_label) for sample in predictions] == head(features()).argmax(1).tolist()


def test_the_class_token_is_the_default():
    feats = features()
    changed = feats[-1].clone()
    changed[:, 1:] = 0
    head = build().eval()
    torch.testing.assert_close(head((changed,)), head(feats), rtol=0, atol=0)


def test_drops_out_normalized_features_in_training_only():
    head = build(dropout=0.5)
    normalized = F.layer_norm(features()[-1][:, 0], (8,), head.norm.weight, head.norm.bias, 1e-6)
    x = head.train().pre_logits(features())
    dropped = x == 0
    assert 0 < dropped.sum() < dropped.numel()
    torch.testing.assert_close(x[~dropped], 2 * normalized[~dropped])
    torch.testing.assert_close(head.eval().pre_logits(features()), normalized)


def test_unknown_token():
    with pytest.raises(ValueError, match=r"model\.downstream\.token must be 'cls' or 'mean', got 'avg'"):
        TokenClsHead(num_classes=5, in_channels=8, token='avg')
