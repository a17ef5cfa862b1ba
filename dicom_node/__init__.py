"""A DICOM node that keeps studies, has algorithms read them, and sends the reports back."""

__version__ = "0.1.0"
