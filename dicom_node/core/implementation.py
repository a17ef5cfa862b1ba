"""How this software names itself on the wire and in files (PS3.7 Annex D.3.3.2, PS3.10 Section 7.1)."""

from dicom_node import __version__

#: The same for every version: it names the software, and the version name its release.
IMPLEMENTATION_CLASS_UID = "2.25.331851758267164450561368136023472599579"

# A short string (SH) of at most 16 characters.
IMPLEMENTATION_VERSION_NAME = f"DCMNODE_{__version__}"[:16]
