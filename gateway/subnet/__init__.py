"""Who may ask: hotkeys, the metagraph, nonces and signatures."""
