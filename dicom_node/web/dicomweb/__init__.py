"""DICOMweb (PS3.18): what the archive holds, searched, retrieved and stored over HTTP."""
