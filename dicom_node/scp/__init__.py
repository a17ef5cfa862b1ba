"""What we serve on the wire: Storage and Verification, as an SCP."""
