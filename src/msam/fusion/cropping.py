"""A random part of each picture in training: what the literature does to frames."""

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample
from typing_extensions import override

from msam.checks import as_number
from msam.errors import InvalidValueError


class RandomCrop(nn.Module):
    """In training, cut a random part out of each picture, stretch it to the picture's size, and mirror it or not.

    The part's area is uniform in `scale` of the whole, the logarithm of its width by its height in pixels uniform in
    `proportions`, as far as it fits. In evaluation pictures stay. Random numbers are torch's, of the pictures' device.

    Args:
        scale: Least and largest share of the area, in (0, 1].
        proportions: Least and largest width by height, > 0.
        mirror: Probability of mirroring, in [0, 1].

    Raises:
        InvalidValueError: If a number is out of its range.

    Source: the augmentation of C. Szegedy and others, *Going Deeper with Convolutions*, CVPR 2015; sampled bilinearly.

    Example:
        >>> RandomCrop().eval()(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self, scale: tuple[float, float] = (0.08, 1.0), proportions: tuple[float, float] = (3 / 4, 4 / 3), mirror: float = 0.5
    ) -> None:
        super().__init__()
        least, most = (as_number("scale", share, 0, 1, bounds="(]") for share in scale)
        narrow, wide = (as_number("proportions", ratio, 0, bounds="()") for ratio in proportions)
        if least > most or narrow > wide:
            raise InvalidValueError(f"scale and proportions must be (least, most), found {scale} and {proportions}")
        self.scale, self.proportions = (least, most), (narrow, wide)
        self.mirror = as_number("mirror", mirror, 0, 1, bounds="[]")

    @override
    def forward(self, images: Tensor) -> Tensor:
        """Cut parts out of pictures.

        Args:
            images: ``(B, channels, H, W)``.

        Returns:
            Of the same shape.

        Raises:
            InvalidValueError: If they are others.
        """
        if images.ndim != 4 or not images.is_floating_point():
            raise InvalidValueError(
                f"pictures must be (B, channels, H, W) of floating point, found {tuple(images.shape)} of {images.dtype}"
            )
        if not self.training:
            return images
        area, ratio, across, down, side = torch.rand(5, len(images), device=images.device, dtype=images.dtype)
        area = self.scale[0] + (self.scale[1] - self.scale[0]) * area
        narrow, wide = torch.tensor(self.proportions).log().tolist()
        ratio = (narrow + (wide - narrow) * ratio).exp()
        ratio = ratio * images.shape[2] / images.shape[3]  # by shares of the sides, not by pixels
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
        mirrored = torch.where(side < self.mirror, -1.0, 1.0).to(images.dtype)
        moves = torch.zeros(len(images), 2, 3, device=images.device, dtype=images.dtype)
        moves[:, 0, 0], moves[:, 1, 1] = width * mirrored, height
        moves[:, 0, 2], moves[:, 1, 2] = (1 - width) * (2 * across - 1), (1 - height) * (2 * down - 1)
        grid = affine_grid(moves, list(images.shape), align_corners=False)
        return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
