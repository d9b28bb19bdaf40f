"""The data sets of the Modality-Aware paper, from what their authors hand out to rows of arrays."""
