"""A detector judged as it serves: whole series in, findings out, against what was drawn in or what readers outlined."""
