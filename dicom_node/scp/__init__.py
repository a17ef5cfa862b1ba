"""What we serve on the wire: Storage and Verification as an SCP, and the answers to our storage commitment requests.

The way of an instance's bytes is drawn in `upper_layer`.
"""
