#!/usr/bin/env bash
# pydicom 3.0.2: apply_modality_lut() turns the stored numbers of a CT slice into Hounsfield units. For an enhanced (multi-frame) CT, whose slope and
# intercept stand in its functional groups, where the standard puts them, it returns the stored numbers, without an error or a warning.
# Seen, for air stored as 24 with slope 1 and intercept -1024:
#     classic CT: -1000.0; enhanced CT: 24.0
# One would expect -1000 of both, or an error. Read the rescale from SharedFunctionalGroupsSequence or PerFrameFunctionalGroupsSequence.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import io
import sys
import warnings

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid


def make(kind, frames):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    image.SOPClassUID, image.SOPInstanceUID, image.Modality = kind, meta.MediaStorageSOPInstanceUID, "CT"
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.Rows = image.Columns = 2
    image.PixelData = np.full((frames, 2, 2), 24, np.uint16).tobytes()
    return image


def read(image):
    stream = io.BytesIO()
    image.save_as(stream, enforce_file_format=True)
    stream.seek(0)
    found = pydicom.dcmread(stream)
    return float(apply_modality_lut(found.pixel_array, found).ravel()[0])


rescale = Dataset()
rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = "1", "-1024", "HU"
classic = make(CTImageStorage, 1)
classic.RescaleSlope, classic.RescaleIntercept = rescale.RescaleSlope, rescale.RescaleIntercept
enhanced = make(EnhancedCTImageStorage, 2)
enhanced.NumberOfFrames = 2
shared = Dataset()
shared.PixelValueTransformationSequence = pydicom.Sequence([rescale])
enhanced.SharedFunctionalGroupsSequence = pydicom.Sequence([shared])
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    values = read(classic), read(enhanced)
print(f"classic CT: {values[0]}; enhanced CT: {values[1]}")
if values != (-1000.0, 24.0) or said:
    print("this has changed")
    sys.exit(1)
PY
