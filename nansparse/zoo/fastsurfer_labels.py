"""What the classes of FastSurfer's networks are: FreeSurfer's label numbers, in the order of the classes.

The coronal and axial networks score 79 classes. The sagittal one cannot tell left from right and scores 51:
the right side's structures stand for both, and a cortical label stands for its right twin (number + 1000).
"""

_SUBCORTICAL = (
    *(0, 2, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 24, 26, 28, 31),
    *(41, 43, 44, 46, 47, 49, 50, 51, 52, 53, 54, 58, 60, 63, 77),
)
_LEFT_CORTEX = (1002, 1003, *range(1005, 1032), 1034, 1035)
# The right cortex has classes of its own only where it lies next to the left one.
_RIGHT_CORTEX = (2002, 2005, 2010, 2012, 2013, 2014, 2016, 2017, 2021, 2022, 2023, 2024, 2025, 2028)
FULL_LABELS = (*_SUBCORTICAL, *_LEFT_CORTEX, *_RIGHT_CORTEX)
_RIGHT_OF_LEFT = {
    **{2: 41, 4: 43, 5: 44, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54},
    **{26: 58, 28: 60, 31: 63},
}
SAGITTAL_LABELS = tuple(
    label for label in FULL_LABELS if label not in _RIGHT_OF_LEFT and label not in _RIGHT_CORTEX
)


def sagittal_classes() -> tuple[int, ...]:
    """Say for each class of the coronal and axial networks which class of the sagittal one scores it.

    Returns:
        79 numbers below 51.
    """
    return tuple(SAGITTAL_LABELS.index(_sagittal(label)) for label in FULL_LABELS)


def _sagittal(label: int) -> int:
    return label - 1000 if label in _RIGHT_CORTEX else _RIGHT_OF_LEFT.get(label, label)
