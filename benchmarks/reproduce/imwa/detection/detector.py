"""Faster R-CNN of torchvision with a focal loss in its head, on a small backbone of our own or a residual network.

Focal     sum over sampled proposals of (1 - p_t) ** 1.5 * cross-entropy over K + 1 classes, divided by their number; the
          box loss stays torchvision's (Unbiased Teacher, arXiv 2102.09480, its released configuration).
Letters   K classes, N images, H W pixels, R sampled proposals.
"""

from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from scarce_common_utils.errors import UserError

BACKBONES = ("small", "resnet18", "resnet34", "resnet50")
FOCAL_POWER = 1.5
SMALL_WIDTHS = (24, 48, 96, 128)
SMALL_PYRAMID = 64
IMAGE_MEAN, IMAGE_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Sizes(NamedTuple):
    """Of the head: its `width`, `sampled` proposals an image, and `proposals` kept an image in training and evaluation."""

    width: int
    sampled: int
    proposals: int


SMALL_SIZES = Sizes(width=256, sampled=128, proposals=256)  # a fifth of the usual step's time on a core
USUAL_SIZES = Sizes(width=1024, sampled=512, proposals=1000)  # torchvision's


def small_backbone() -> nn.Sequential:
    """Four stages of 3x3 convolutions with BatchNorm at strides 4, 8, 16, 32, behind a stem of stride 2."""
    before = (SMALL_WIDTHS[0], *SMALL_WIDTHS[:-1])
    parts = OrderedDict[str, nn.Module](stem=_unit(3, SMALL_WIDTHS[0], stride=2))
    for number, (c, w) in enumerate(zip(before, SMALL_WIDTHS, strict=True)):
        parts[f"stage{number}"] = nn.Sequential(_unit(c, w, stride=2), _unit(w, w, stride=1))
    return nn.Sequential(parts)


class FocalRoIHeads(RoIHeads):
    """torchvision's box heads with the focal loss in place of cross-entropy."""

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """As `RoIHeads.forward` without masks and keypoints: detections when evaluating, losses when training."""
        if not self.training:
            return super().forward(features, proposals, image_shapes, targets)
        proposals, _, labels, regression_targets = self.select_training_samples(proposals, targets)
        assert labels is not None
        assert regression_targets is not None
        pooled = self.box_head(self.box_roi_pool(features, proposals, image_shapes))
        logits, regression = self.box_predictor(pooled)
        _, box_loss = fastrcnn_loss(logits, regression, labels, regression_targets)
        return [], {"loss_classifier": focal_loss(logits, torch.cat(labels)), "loss_box_reg": box_loss}


def focal_loss(logits: Tensor, labels: Tensor, *, power: float = FOCAL_POWER) -> Tensor:
    """Float[]: mean over R of (1 - p_t) ** power * -log p_t, for logits Float[R K+1] and labels Int64[R]."""
    log_p = torch.log_softmax(logits.float(), dim=1).gather(1, labels[:, None]).squeeze(1)
    return ((1.0 - log_p.exp()) ** power * -log_p).mean()


def build_detector(classes: int, *, backbone: str, side: int, longest: int, weights: Path | None = None) -> FasterRCNN:
    """Faster R-CNN with a feature pyramid.

    Args:
        classes: K, without background.
        backbone: one of BACKBONES. `small` and a residual network without `weights` train all layers with BatchNorm; with
            `weights` BatchNorm is frozen and the first two stages stay as they are, as in the source.
        side: shorter side in evaluation, in pixels.
        longest: bound of the longer side.
        weights: state of torchvision's classifier of that name (.safetensors, or a file of torch.save).

    Raises:
        UserError: the backbone is unknown, or the weights are not its; the first differing names are given.
    """
    if backbone not in BACKBONES:
        raise UserError(f"--backbone is {backbone!r}; choose from {', '.join(BACKBONES)}.")
    if backbone == "small":
        if weights is not None:
            raise UserError(
                "--weights are for a residual network; leave them out, or choose --backbone resnet18 or resnet50."
            )
        stages = {f"stage{number}": str(number) for number in range(len(SMALL_WIDTHS))}
        body: nn.Module = BackboneWithFPN(small_backbone(), stages, list(SMALL_WIDTHS), SMALL_PYRAMID)
    else:
        body = resnet_fpn_backbone(
            backbone_name=backbone,
            weights=None,
            trainable_layers=5 if weights is None else 3,
            norm_layer=nn.BatchNorm2d if weights is None else FrozenBatchNorm2d,
        )
        if weights is not None:
            load_weights(body.get_submodule("body"), weights)
    return _assemble(
        body, classes, sizes=SMALL_SIZES if backbone == "small" else USUAL_SIZES, side=side, longest=longest
    )


def _assemble(body: nn.Module, classes: int, *, sizes: Sizes, side: int, longest: int) -> FasterRCNN:
    channels = int(body.out_channels)  # type: ignore[arg-type] - an attribute of torchvision's pyramids
    # Anchors shrink with the image, from 32..512 at a side of 800; below 8 pixels the finest map cannot tell boxes apart.
    base = max(8, round(32 * side / 800))
    anchors = AnchorGenerator(tuple((base * 2**level,) for level in range(5)), ((0.5, 1.0, 2.0),) * 5)
    pool = MultiScaleRoIAlign(featmap_names=["0", "1", "2", "3"], output_size=7, sampling_ratio=2)
    model = FasterRCNN(
        body,
        min_size=side,
        max_size=longest,
        image_mean=list(IMAGE_MEAN),
        image_std=list(IMAGE_DEVIATION),
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=2 * sizes.proposals,
        rpn_post_nms_top_n_train=2 * sizes.proposals,
        rpn_pre_nms_top_n_test=sizes.proposals,
        rpn_post_nms_top_n_test=sizes.proposals,
        box_roi_pool=pool,
        box_head=TwoMLPHead(channels * 49, sizes.width),
        box_predictor=FastRCNNPredictor(sizes.width, classes + 1),
        _skip_resize=True,  # views come at their size; in evaluation torchvision brings images to min_size
    )
    parts = model.roi_heads
    model.roi_heads = FocalRoIHeads(
        parts.box_roi_pool,
        parts.box_head,
        parts.box_predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=sizes.sampled,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=0.05,
        nms_thresh=0.5,
        detections_per_img=100,
    )
    return model


def load_weights(body: nn.Module, path: Path) -> None:
    """Load a classifier's state into a backbone; its last layer is not needed.

    Raises:
        UserError: the file cannot be read, or names or shapes differ; they are named.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = {name: value for name, value in state.items() if not name.startswith("fc.")}
        counters = {name for name in state if name.endswith("num_batches_tracked")}  # frozen norms have none
        missing, unexpected = body.load_state_dict(
            {name: value for name, value in state.items() if name not in counters}, strict=False
        )
    except Exception as error:
        raise UserError(f"--weights is {path}, which cannot be loaded ({str(error).splitlines()[0]}).") from error
    if missing or unexpected:
        named = ", ".join([*missing, *unexpected][:5])
        raise UserError(f"--weights is {path}, and its tensors are not this backbone's: {named}.")


def _unit(channels: int, width: int, *, stride: int) -> nn.Module:
    convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
