"""How the node is run and shown: settings to start from, the demo, the benchmark."""
